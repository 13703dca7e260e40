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


def test_it_has_learned_what_furniture_looks_like():
    """Four legs under a board are a table or a desk, up the z axis, and no bathtub."""
    generator = torch.Generator().manual_seed(0)
    board = torch.rand(700, 3, generator=generator) * torch.tensor([1.6, 1.0, 0.06])
    feet = torch.tensor([[0.03, 0.03], [1.5, 0.03], [0.03, 0.93], [1.5, 0.93]])
    legs = torch.rand(324, 3, generator=generator) * torch.tensor([0.06, 0.06, -0.8])
    legs[:, :2] += feet[torch.arange(324) % 4]
    cloud = torch.cat([board, legs])
    cloud -= cloud.mean(0)
    cloud /= cloud.norm(dim=1).max()
    model = from_pretrained("mgic_dgcnn_modelnet10")
    share = model(cloud[None]).softmax(1)[0]
    likely = {model.card.classes[i] for i in share.topk(2).indices.tolist()}
    assert likely == {"table", "desk"}, likely


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
