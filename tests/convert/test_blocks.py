import copy
import random
import unittest.mock

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from mgic_geo import (
    MGICBasicBlock2d,
    MGICBottleneck2d,
    MGICConv2d,
    MGICInvertedResidual2d,
    replace_convs,
)
from mgic_geo.convert.blocks import block_form
from mgic_geo.convert.forms import Sizes

SIZES = Sizes(8, 8)


def torchvision_inverted(version, squeeze=True):
    if version == 2:
        return torchvision.models.mobilenetv2.InvertedResidual(16, 16, 1, 4)
    config = torchvision.models.mobilenetv3.InvertedResidualConfig(16, 5, 64, 24, squeeze, "HS", 2, 1, 1)
    return torchvision.models.mobilenetv3.InvertedResidual(config, nn.BatchNorm2d)


def shortcut(width_in, width_out):
    return nn.Sequential(nn.Conv2d(width_in, width_out, 1, 2, bias=False), nn.BatchNorm2d(width_out))


BLOCKS = [
    (BasicBlock(16, 16), MGICBasicBlock2d),
    (BasicBlock(8, 16, 2, shortcut(8, 16)), MGICBasicBlock2d),
    (Bottleneck(64, 16), MGICBottleneck2d),
    (Bottleneck(32, 16, 2, shortcut(32, 64)), MGICBottleneck2d),
    (timm.models.resnet.BasicBlock(16, 16), MGICBasicBlock2d),
    (timm.models.resnet.Bottleneck(64, 16, act_layer=nn.SiLU), MGICBottleneck2d),
    (torchvision_inverted(2), MGICInvertedResidual2d),
    (torchvision_inverted(3), MGICInvertedResidual2d),
    (torchvision_inverted(3, squeeze=False), MGICInvertedResidual2d),
    (timm.models._efficientnet_blocks.InvertedResidual(16, 16, exp_ratio=4.0), MGICInvertedResidual2d),
]


@pytest.mark.parametrize(("block", "kind"), BLOCKS, ids=lambda value: getattr(value, "__name__", ""))
def test_blocks_are_recognised_by_what_they_compute(block, kind):
    before = copy.deepcopy(block.state_dict())
    new = block_form(block)(SIZES)
    assert type(new) is kind
    width = next(m for m in block.modules() if isinstance(m, nn.Conv2d)).in_channels
    x = torch.randn(2, width, 8, 8)
    assert new(x).shape == block.eval()(x).shape
    for name, value in block.state_dict().items():
        assert torch.equal(value, before[name]), "recognising must not touch the block"


class Doubled(BasicBlock):
    """The parts of a basic block, another forward."""

    def forward(self, x):
        return 2 * super().forward(x)


class InTraining(BasicBlock):
    """A basic block that also does something in training, which no part of it tells."""

    def __init__(self, more):
        super().__init__(16, 16)
        self.more = more

    def forward(self, x):
        out = super().forward(x)
        return self.more(self, out) if self.training else out


def slower_statistics():
    block = BasicBlock(16, 16)
    block.bn2.momentum = 0.01
    return block


@pytest.mark.parametrize(
    "block",
    [
        InTraining(lambda block, x: F.dropout(x, 0.5)),
        InTraining(lambda block, x: torchvision.ops.stochastic_depth(x, 1e-6, "row")),
        InTraining(lambda block, x: x if random.random() > 1e-6 else 0 * x),
        InTraining(lambda block, x: 2 * x),
        slower_statistics(),
    ],
    ids=["dropout", "stochastic depth", "python's generator", "scale", "momentum"],
)
def test_a_block_with_a_training_of_its_own_is_none(block):
    assert block_form(block) is None
    assert block_form(InTraining(lambda block, x: x)) is not None


class Recording(BasicBlock):
    """Keeps its last output, for a loss say."""

    def __init__(self):
        super().__init__(16, 16)
        self.last = None

    def forward(self, x):
        self.last = super().forward(x)
        return self.last


class Averaging(BasicBlock):
    """Keeps a mean that is not saved."""

    def __init__(self):
        super().__init__(16, 16)
        self.register_buffer("mean", torch.zeros(()), persistent=False)

    def forward(self, x):
        out = super().forward(x)
        self.mean.lerp_(out.mean(), 0.1)
        return out


def with_buffer():
    block = BasicBlock(16, 16)
    block.register_buffer("scale", torch.ones(1), persistent=False)
    return block


@pytest.mark.parametrize("block", [Recording(), Averaging(), with_buffer()], ids=lambda b: type(b).__name__)
def test_a_block_that_keeps_more_than_statistics_is_none(block):
    assert block_form(block) is None


def test_norms_of_another_precision_keep_it():
    block = BasicBlock(16, 16).bfloat16()
    assert block_form(block)(SIZES).cycle.norms[0].weight.dtype == torch.bfloat16
    for norm in (block.bn1, block.bn2):
        norm.float()
    assert block_form(block) is None
    converted = replace_convs(nn.Sequential(block), 8, 8, skip_ends=False)
    assert type(converted[0].conv1) is MGICConv2d
    assert (converted[0].bn1.weight.dtype, converted[0].conv1.bias) == (torch.float32, None)


def test_comparing_leaves_generators_alone():
    block = InTraining(lambda block, x: F.dropout(x, random.random()))
    state, python = torch.get_rng_state(), random.getstate()
    block_form(block)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python


def test_synchronised_norms_need_no_other_process():
    block = BasicBlock(16, 16, norm_layer=nn.SyncBatchNorm)
    with unittest.mock.patch.object(nn.SyncBatchNorm, "forward", side_effect=RuntimeError("no group")):
        new = block_form(block)(SIZES)
    assert type(new.cycle.norms[0]) is nn.SyncBatchNorm


@pytest.mark.parametrize(
    "block",
    [
        Doubled(16, 16),
        Bottleneck(64, 32, groups=4, base_width=32),
        timm.models.resnet.Bottleneck(64, 16, attn_layer=timm.layers.SEModule),
        timm.models.resnet.BasicBlock(16, 16, drop_path=timm.layers.DropPath(0.1)),
        BasicBlock(16, 16, norm_layer=lambda width: nn.GroupNorm(4, width)),
        torchvision.models.efficientnet.MBConv(
            torchvision.models.efficientnet.MBConvConfig(4, 3, 1, 16, 16, 1), 0.1, nn.BatchNorm2d
        ),
        nn.TransformerEncoderLayer(8, 2),
        nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()),
    ],
    ids=lambda block: type(block).__name__,
)
def test_what_does_more_or_something_else_is_no_block(block):
    assert block_form(block) is None


def test_a_zero_last_scale_hides_nothing():
    block = Doubled(16, 16)
    nn.init.zeros_(block.bn2.weight)
    assert block_form(block) is None


def test_settings_are_kept_and_narrow_blocks_are_not_replaced():
    block = BasicBlock(16, 16, norm_layer=lambda width: nn.BatchNorm2d(width, eps=0.5, momentum=0.25))
    new = block_form(block.double())(SIZES)
    assert (new.cycle.norms[0].eps, new.cycle.blocks[0].bn1.momentum) == (0.5, 0.25)
    assert new.cycle.norms[0].weight.dtype == torch.float64
    assert block_form(block)(Sizes(8, 16)) == "too narrow: 16 channels, coarse_size=16"


def test_a_block_that_may_be_given_more_than_an_image_is_none():
    class Scaled(BasicBlock):
        def forward(self, x, scale=None):
            out = super().forward(x)
            return out if scale is None else out * scale

    assert block_form(Scaled(16, 16)) is None
