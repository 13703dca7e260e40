import math

import pytest
import torch
from torch import nn

from mgic_geo import MGICLinear
from mgic_geo.convert.forms import Sizes, copies, count, describe, match_scale, settle


def test_too_narrow():
    sizes = Sizes(16, 32)
    assert sizes.too_narrow(64, 33) == ""
    assert sizes.too_narrow(64, 32) == "too narrow: 32 channels, coarse_size=32"


def test_settle_keeps_precision_mode_and_frozen_weights():
    old = nn.Linear(8, 8).double().eval().requires_grad_(False)
    new = settle(nn.Linear(8, 8), old)
    assert (new.weight.dtype, new.training, new.weight.requires_grad) == (torch.float64, False, False)
    old.bias.requires_grad_(True)
    assert settle(nn.Linear(8, 8), old).weight.requires_grad


def test_match_scale_gives_all_levels_the_gain_of_the_dense_weight():
    torch.manual_seed(0)
    layer, weight = MGICLinear(64, 64, 16, 16), 0.5 * torch.randn(64, 64)
    match_scale(layer.cycle.blocks, weight)
    for level in layer.cycle.blocks:
        gain = level.weight.square().mean().sqrt() * math.sqrt(level.weight.size(1))
        torch.testing.assert_close(gain, weight.square().mean().sqrt() * 8)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.Conv2d(8, 16, (1, 3)), "Conv2d 8→16, 1×3"),
        (nn.Linear(3, 4), "Linear 3→4"),
        (nn.ReLU(), "ReLU"),
        (MGICLinear(16, 16, 8, 8), "MGICLinear 16/8"),
    ],
)
def test_describe(module, text):
    assert describe(module) == text


def test_copies_are_copies():
    act = nn.ReLU()
    assert copies(act)(inplace=True) is not act
    assert count(nn.Linear(3, 4)) == 16
