"""Trained models by name and path."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mgic_geo import ImageCard, ModelCard, from_pretrained, fuse, save_model


def test_by_name_and_the_same_in_all_forms():
    model = from_pretrained("mgic_dgcnn_modelnet10")
    assert isinstance(model.card, ModelCard)
    assert (model.card.model, len(model.card.classes), model.card.points) == ("mgic_dgcnn", 10, 1024)
    assert not model.training
    clouds = torch.rand(2, 200, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(clouds)
        assert torch.equal(from_pretrained("mgic_dgcnn_modelnet10")(clouds), logits)
        torch.testing.assert_close(fuse(model)(clouds), logits, atol=1e-5, rtol=1e-5)
        program = torch.export.export(model, (clouds,))
        torch.testing.assert_close(program.module()(clouds), logits, atol=1e-5, rtol=1e-5)


LEG = (0.06, 0.06, 0.8)
FURNITURE = {  # boxes: number of points, least corner, size
    "table": [
        (784, (0, 0, 0), (1.6, 1, 0.05)),
        *((60, (x, y, -0.8), LEG) for x in (0, 1.54) for y in (0, 0.94)),
    ],
    "bed": [(900, (0, 0, 0), (1.6, 2, 0.4)), (124, (0, 2, 0), (1.6, 0.08, 0.9))],
    "chair": [
        (400, (0, 0, 0), (0.5, 0.5, 0.05)),
        (400, (0, 0.45, 0), (0.5, 0.05, 0.6)),
        *((56, (x, y, -0.45), (0.04, 0.04, 0.45)) for x in (0, 0.46) for y in (0, 0.46)),
    ],
}  # fmt: skip


def cloud_of(boxes, generator):
    """Points on the surfaces of boxes, centred and in the unit sphere."""
    parts = []
    for count, corner, size in boxes:
        points = torch.rand(count, 3, generator=generator)
        areas = torch.tensor([size[1] * size[2], size[0] * size[2], size[0] * size[1]])
        axis = torch.multinomial(areas, count, replacement=True, generator=generator)
        points[torch.arange(count), axis] = torch.randint(2, (count,), generator=generator).float()
        parts.append(points * torch.tensor(size) + torch.tensor(corner))
    cloud = torch.cat(parts)
    cloud = cloud - cloud.mean(0)
    return cloud / cloud.norm(dim=1).max()


def test_it_knows_furniture_made_of_boxes():
    """By one look at each; a test of whether these are trained weights, not of how good they are."""
    generator = torch.Generator().manual_seed(0)
    model = from_pretrained("mgic_dgcnn_modelnet10")
    clouds = torch.stack([cloud_of(boxes, generator) for boxes in FURNITURE.values()])
    with torch.no_grad():
        found = model(clouds).argmax(1).tolist()
    assert [model.card.classes[i] for i in found] == list(FURNITURE)


def test_by_path(tmp_path):
    card = ImageCard("resnet56", {"depths": [1, 1, 1]}, ("a", "b"), (0.5,) * 3, (0.25,) * 3, (8, 8))
    model = card.build().eval()
    save_model(tmp_path / "model.safetensors", model, card)
    images = torch.randn(2, 3, 8, 8)
    for path in (tmp_path, str(tmp_path / "model.safetensors")):
        loaded = from_pretrained(path)
        assert loaded.card.normalization.mean == (0.5,) * 3
        assert torch.equal(loaded(images), model(images))


def test_what_is_none_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="comes with the package: mgic_dgcnn_modelnet10"):
        from_pretrained("mgic_dgcnn_modelnet40")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="does not say which model it holds"):
        from_pretrained(tmp_path / "other")
    save_file({"x": torch.zeros(1)}, tmp_path / "newer", {"mgic_geo": json.dumps({"flavour": 3})})
    with pytest.raises(ValueError, match="another version of this package, with a card of flavour"):
        from_pretrained(tmp_path / "newer")
