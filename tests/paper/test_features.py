"""Features by hooks: which layer is chosen, and that what is read is what the network computes."""

import pytest
import torch
from torch import nn

from mgic_geo import create_model
from mgic_geo.paper.features import find_layer, read_features


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return create_model(name, num_classes=4).eval()


def test_the_first_convolution_with_what_follows(image: torch.Tensor) -> None:
    model = build("mgic_resnet50_g16_c64")
    layer = find_layer(model, image)
    assert layer.shape == (64, 16, 16)
    assert layer.text == "conv1, bn1, act (the first convolution): 64 channels of 16 × 16"
    images = torch.cat([image, -image])
    with torch.inference_mode():
        bare = model.conv1(images)  # type: ignore[operator]
        seen = model.act(model.bn1(bare))  # type: ignore[operator]
    batches = list(read_features(model, layer, [images, images[:1]]))
    assert [len(batch) for batch in batches] == [2, 1]
    assert torch.equal(batches[0].movedim(-1, 1), seen)

    layer = find_layer(model, image, activated=False)
    assert layer.text.startswith("conv1 (")
    (features,) = read_features(model, layer, [images])
    assert torch.equal(features.movedim(-1, 1), bare)
    assert not model.conv1._forward_hooks  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [("resnet56", "layer3", (64, 8, 8)), ("mobilenetv3_large", "features.7", (80, 2, 2))],
)
def test_a_stage_where_the_first_convolution_is_narrow(
    image: torch.Tensor, name: str, layer: str, shape: tuple[int, int, int]
) -> None:
    model = build(name)
    found = find_layer(model, image)
    assert (found.name, found.shape, found.then) == (layer, shape, ())
    assert "the first part with at least 64 channels; the first convolution has 16" in found.text
    (features,) = read_features(model, found, [image])
    assert features.shape == (1, *shape[1:], shape[0])


def test_a_layer_by_name(image: torch.Tensor) -> None:
    model = build("resnet56")
    assert find_layer(model, image, "conv1").text.startswith("conv1, bn1, act (as asked for): 16 channels")
    assert find_layer(model, image, "layer2.0").shape == (32, 16, 16)
    with pytest.raises(ValueError, match="no module 'layer4' gives feature maps; try layer"):
        find_layer(model, image, "layer4")
    with pytest.raises(ValueError, match="no module 'fc'"):
        find_layer(model, image, "fc")


def test_networks_without_a_fitting_layer(image: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="no 2D convolution"):
        find_layer(nn.Flatten(), image)
    with pytest.raises(ValueError, match="the first convolution, 0, has 8 channels, and no later part"):
        find_layer(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), image)


def test_an_activation_in_place_does_not_reach_what_was_read(image: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(inplace=True), nn.Conv2d(64, 8, 1))
    bare, seen = (
        next(iter(read_features(model, find_layer(model, image, activated=activated), [image])))
        for activated in (False, True)
    )
    assert float(bare.min()) < 0
    assert torch.equal(seen, bare.relu())
