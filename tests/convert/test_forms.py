import pytest
import torch
from torch import nn

from mgic_geo import MGICLinear
from mgic_geo.convert.forms import Sizes, copies, count, describe, gain_of, leaving, match_placement


def test_too_narrow():
    sizes = Sizes(16, 32)
    assert sizes.too_narrow(64, 33) == ""
    assert sizes.too_narrow(64, 32) == "too narrow: 32 channels, coarse_size=32"


def test_match_placement_keeps_precision_mode_and_frozen_weights():
    old = nn.Linear(8, 8).double().eval().requires_grad_(False)
    new = match_placement(nn.Linear(8, 8), old)
    assert (new.weight.dtype, new.training, new.weight.requires_grad) == (torch.float64, False, False)
    old.bias.requires_grad_(True)
    assert match_placement(nn.Linear(8, 8), old).weight.requires_grad


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
def test_match_placement_keeps_the_memory_format(layout):
    old, new = nn.Conv2d(8, 8, 3).to(memory_format=layout), nn.Sequential(nn.Conv2d(8, 8, 5), nn.Linear(8, 8))
    match_placement(new, old)
    assert new[0].weight.is_contiguous(memory_format=layout)


def test_gain_is_that_of_the_outputs():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(64, 64, 3, bias=False), torch.randn(8, 64, 12, 12)
    assert gain_of(conv.weight) == pytest.approx(
        (conv(x).square().mean() / x.square().mean()).sqrt().item(), rel=0.05
    )


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.Conv2d(8, 16, (1, 3)), "Conv2d 8 -> 16, 1×3"),
        (nn.Linear(3, 4), "Linear 3 -> 4"),
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


def test_widths_that_are_not_known_do_not_count():
    assert count(nn.Sequential(nn.LazyLinear(8), nn.Linear(3, 4))) == 16


def test_what_leaves_a_layer_alone_is_a_match():
    match = eval(leaving("a.0").split("=", 1)[1].removesuffix(" leaves it alone"))
    assert [match(name, None) for name in ("a.0", "a.1")] == [False, True]
