import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch.nn.utils import parametrizations

from mgic_geo import MGICConv2d, MGICLinear
from mgic_geo.convert.forms import Sizes
from mgic_geo.convert.layers import is_layer, layer_form

SIZES = Sizes(8, 8)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(16, 32, 3, 2, 1), (2, 16, 7, 7)),
        (nn.Conv2d(16, 32, (1, 3), padding=(0, 1), padding_mode="reflect", bias=False), (2, 16, 7, 7)),
        (nn.Conv2d(32, 16, 3, padding="same", dilation=2), (2, 32, 7, 7)),
        (nn.Linear(16, 32), (2, 5, 16)),
        (pyg.Linear(32, 16, bias=False), (2, 32)),
    ],
)
def test_takes_the_place_of_the_layer(layer, shape):
    torch.manual_seed(0)
    form = layer_form(layer)
    new = form(SIZES)
    assert isinstance(new, MGICConv2d if isinstance(layer, nn.Conv2d) else MGICLinear)
    x = torch.randn(shape)
    assert new(x).shape == layer(x).shape
    assert (new.bias is None) == (layer.bias is None)
    if layer.bias is not None:
        assert torch.equal(new.bias, layer.bias)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (nn.Conv2d(16, 16, 3, groups=16), "depth-wise"),
        (nn.Conv2d(16, 16, 3, groups=4), "already grouped: 4 groups"),
        (nn.Conv1d(16, 16, 3), "no MGIC form of Conv1d"),
        (nn.ConvTranspose2d(16, 16, 3), "no MGIC form of ConvTranspose2d"),
        (
            parametrizations.weight_norm(nn.Linear(16, 16)),
            "ParametrizedLinear, a Linear with a forward of its own",
        ),
    ],
)
def test_says_why_there_is_no_form(layer, reason):
    assert is_layer(layer)
    assert layer_form(layer).endswith(reason)


def test_narrow_layers_have_none_either():
    for layer in (nn.Linear(16, 8), nn.Conv2d(3, 16, 3)):
        assert layer_form(layer)(SIZES).startswith("too narrow")
    assert not is_layer(nn.BatchNorm2d(3))


def test_keeps_the_scale_of_any_initialisation():
    # In networks without normalisation the layers' gains multiply.
    torch.manual_seed(0)
    layers = [nn.Conv2d(64, 64, 3, padding=1, bias=False) for _ in range(6)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    new, x = [layer_form(layer)(SIZES) for layer in layers], torch.randn(4, 64, 16, 16)
    dense, ours = (
        nn.Sequential(*(m for layer in side for m in (layer, nn.ReLU())))(x) for side in (layers, new)
    )
    assert 0.4 < ours.std() / dense.std() < 2.5


def test_what_is_put_on_a_layer_is_not_lost():
    for hold in (
        lambda layer: layer.register_buffer("extra", torch.ones(3)),
        lambda layer: layer.register_buffer("extra", torch.ones(3), persistent=False),
        lambda layer: layer.register_parameter("extra", nn.Parameter(torch.ones(3))),
        lambda layer: layer.add_module("extra", nn.Identity()),
    ):
        for layer in (nn.Linear(16, 16), nn.Conv2d(16, 16, 1), pyg.Linear(16, 16)):
            hold(layer)
            assert layer_form(layer) == "it holds extra, which would be lost"
    layer = nn.Linear(16, 16)
    layer.rank, layer.hierarchy = 3, "its own"
    new = layer_form(layer)(SIZES)
    assert new.rank == 3
    assert new.hierarchy.channels == 16


@pytest.mark.parametrize("frozen", ["weight", "bias", ""])
def test_weight_and_bias_are_frozen_apart(frozen):
    for layer in (nn.Linear(16, 16), nn.Conv2d(16, 16, 3, padding=1)):
        for name, p in layer.named_parameters():
            p.requires_grad_(name != frozen)
        for name, p in layer_form(layer)(SIZES).named_parameters():
            assert p.requires_grad == (frozen != ("bias" if name == "bias" else "weight"))
