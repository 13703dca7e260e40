import pytest
import torch
from torch import nn

from mgic_geo import MGICBasicBlock2d
from mgic_geo.image.conv import conv2d, conv_norm_act, initialize


def test_start_counts_the_fan_of_a_group():
    torch.manual_seed(0)
    depthwise = conv2d(512, 512, 3, groups=512)
    dense = conv_norm_act(64, 128, 1)
    initialize(nn.Sequential(depthwise, dense))
    assert depthwise.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert dense[0].weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)


def test_all_scales_start_at_one_but_those_of_the_finest_correction():
    block = MGICBasicBlock2d(16, 16, group_size=4, coarse_size=4)
    initialize(block)
    for level in block.cycle.blocks:
        assert torch.equal(level.bn1.weight, torch.ones_like(level.bn1.weight))
    for norm, scale in zip(block.cycle.norms, (0.0, 1.0), strict=True):
        assert torch.equal(norm.weight, torch.full_like(norm.weight, scale))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4, affine=False), nn.GroupNorm(2, 4, affine=False)], ids=str)
def test_a_normalisation_without_scales_is_left(norm):
    initialize(norm)
    assert not list(norm.parameters())
