import copy
import io
import math
from itertools import pairwise

import oracles
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from mgic_geo import (
    GroupedLinear,
    MGICBasicBlock2d,
    MGICBottleneck2d,
    MGICInvertedResidual2d,
    Prolongation,
    Restriction,
)  # fmt: skip
from mgic_geo.image.mgic_blocks import depthwise_shortcut

sizes = {"group_size": 4, "coarse_size": 4}


def make(kind, c_in, width, stride=1, **kwargs):
    """A block of any of the three kinds, ``width`` planes wide."""
    torch.manual_seed(0)
    if kind is MGICInvertedResidual2d:
        kwargs = {"squeeze": True, **kwargs}
        return kind(c_in, 3 * width, width, 3, stride, **kwargs)
    return kind(c_in, width, stride, **kwargs)


KINDS = [MGICBasicBlock2d, MGICBottleneck2d, MGICInvertedResidual2d]


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(KINDS), st.integers(1, 20), st.integers(1, 40), st.integers(1, 12), st.integers(1, 12),
    st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_equals_the_recursive_twin_at_any_width(kind, c_in, width, group_size, coarse_size, stride, training):
    block = make(
        kind, c_in, width, stride, group_size=group_size, coarse_size=coarse_size, correction_scale=1.0
    )
    block = block.double().train(training)
    x = torch.randn(2, c_in, 4, 4, dtype=torch.double, requires_grad=True)
    ours = block(x)
    assert ours.shape == (2, block.out_channels, 4 // stride, 4 // stride)
    twin = oracles.v_cycle(block.cycle, block.shortcut(x))
    inputs = [x, *block.parameters()]
    oracles.assert_same_gradients(ours, twin, inputs, inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_every_output_channel_depends_on_every_input_channel(kind):
    c = 32 if kind is MGICBottleneck2d else 16
    for c_in, stride in ((c, 1), (8, 2)):
        width = c // getattr(kind, "expansion", 1)
        block = make(kind, c_in, width, stride, group_size=2, coarse_size=2, act_layer=nn.SiLU).double()
        x = torch.randn(1, c_in, 4, 4, dtype=torch.double)

        def coupling(block=block, x=x):
            jacobian = torch.autograd.functional.jacobian(block.eval(), x)
            return jacobian.abs().sum((0, 2, 3, 4, 6, 7))

        # At first the finest correction counts nothing; one step brings in those of all levels.
        assert coupling().shape == (c, c_in)
        assert not bool((coupling() > 0).all())
        optimizer = torch.optim.SGD(block.parameters(), lr=1e-3)
        block.train()(torch.randn(2, c_in, 4, 4, dtype=torch.double)).square().sum().backward()
        optimizer.step()
        assert bool((coupling() > 0).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_identity_blocks_make_the_identity(kind, training):
    expansion = getattr(kind, "expansion", 1)
    kwargs = {} if kind is MGICInvertedResidual2d else {"preactivation": True}
    block = make(kind, 16 * expansion, 16, **sizes, **kwargs).train(training)
    for level in block.cycle.blocks:
        convolutions = [module for module in level.modules() if isinstance(module, nn.Conv2d)]
        nn.init.zeros_(convolutions[-1].weight)
    x = torch.randn(2, 16 * expansion, 5, 5)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_grow_linearly(kind):
    expansion = getattr(kind, "expansion", 1)
    count = [
        sum(p.numel() for p in make(kind, expansion * c, c, group_size=8, coarse_size=8).parameters())
        for c in (128, 256, 512)
    ]
    assert all(1.9 < b / a < 2.1 for a, b in pairwise(count))


def test_levels_of_a_bottleneck_map_four_channels_a_plane():
    block = MGICBottleneck2d(64, 16, group_size=4, coarse_size=8)
    assert block.hierarchy.widths == (16, 8)
    assert [tuple(t.map.weight.shape) for t in block.cycle.restrictions] == [(32, 16)]
    assert [tuple(t.map.weight.shape) for t in block.cycle.prolongations] == [(64, 8)]
    assert block.cycle.blocks[0].conv2.groups == 4
    assert block.cycle.blocks[1].conv1.weight.shape == (8, 32, 1, 1)


def test_levels_of_an_inverted_residual_widen_alike():
    block = MGICInvertedResidual2d(80, 184, 80, squeeze=True, group_size=40, coarse_size=40)
    depthwise = [level.block[1][0].out_channels for level in block.cycle.blocks]
    assert depthwise == [184, 92]
    assert [level.block[2].fc1.groups for level in block.cycle.blocks] == [2, 1]
    # Where the groups do not divide 2.3 times the width, the nearest multiple of them does.
    odd = MGICInvertedResidual2d(30, 69, 30, group_size=6, coarse_size=15)
    assert [level.block[1][0].out_channels for level in odd.cycle.blocks] == [70, 34]


@pytest.mark.parametrize(("c_in", "c_out", "groups"), [(16, 64, 16), (64, 16, 16), (16, 24, 8), (7, 16, 1)])
def test_the_shortcut_is_depthwise_where_widths_divide(c_in, c_out, groups):
    shortcut = depthwise_shortcut(c_in, c_out, stride=2)
    assert shortcut[0].groups == groups == math.gcd(c_in, c_out)
    assert shortcut[0].kernel_size == (3, 3)
    assert shortcut(torch.randn(1, c_in, 9, 9)).shape == (1, c_out, 5, 5)
    assert isinstance(depthwise_shortcut(c_in, c_in), nn.Identity)


@pytest.mark.parametrize("ahead", [False, True])
def test_the_shortcut_is_activated_unless_blocks_do_so_ahead(ahead):
    block = MGICBasicBlock2d(8, 16, preactivation=ahead, **sizes)
    assert any(isinstance(m, nn.ReLU) for m in block.shortcut) != ahead


def transfers(model):
    found = [m.map.weight for m in model.modules() if isinstance(m, Restriction | Prolongation)]
    assert found
    return found


@pytest.mark.parametrize("kind", [MGICBasicBlock2d, MGICBottleneck2d])
def test_drops_into_torchvisions_resnet(kind):
    torch.manual_seed(0)
    model = torchvision.models.ResNet(kind, [1, 2, 1, 1], num_classes=5)
    assert sum(isinstance(m, kind) for m in model.modules()) == 5
    assert not any("downsample" in name for name, _ in model.named_parameters())
    for weight in transfers(model):  # torchvision's own start of convolutions leaves them
        assert bool((weight > 0).all())
        torch.testing.assert_close(weight.sum(1), torch.ones(len(weight)))
    logits = model(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_sizes_and_dilation_through_torchvision():
    block = MGICBottleneck2d.sized(group_size=8, coarse_size=16)
    model = torchvision.models.ResNet(
        block, [1, 1, 1, 2], num_classes=5, replace_stride_with_dilation=[False, False, True]
    )
    assert model.layer4[0].hierarchy.group_size == 8
    assert model.layer4[1].cycle.blocks[0].conv2.dilation == (2, 2)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 5)
    with pytest.raises(ValueError, match="groups=1 only, got 32"):
        torchvision.models.ResNet(block, [1, 1, 1, 1], groups=32, width_per_group=4)


@pytest.mark.parametrize("kind", [MGICBasicBlock2d, MGICBottleneck2d])
def test_drops_into_timms_resnet(kind):
    timm_resnet = pytest.importorskip("timm.models.resnet")
    for block in (kind, kind.sized(group_size=8, coarse_size=16)):
        model = timm_resnet.ResNet(block, (1, 1, 1, 1), num_classes=5)
        for weight in transfers(model):
            torch.testing.assert_close(weight.sum(1), torch.ones(len(weight)))
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 5)
        assert model.forward_features(torch.randn(1, 3, 64, 64)).shape == (1, 512 * kind.expansion, 2, 2)
    with pytest.raises(ValueError, match="cardinality=1 only, got 32"):
        timm_resnet.ResNet(kind, (1, 1, 1, 1), cardinality=32)


@pytest.mark.parametrize("kind", KINDS)
def test_channels_last_and_precision(kind):
    expansion = getattr(kind, "expansion", 1)
    block = make(kind, 8 * expansion, 8, **sizes).eval()
    x = torch.randn(2, 8 * expansion, 6, 6)
    out = block(x)
    torch.testing.assert_close(block(x.to(memory_format=torch.channels_last)), out)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert oracles.relative_difference(block(x).float(), out) < 0.05
    assert oracles.relative_difference(copy.deepcopy(block).double()(x.double()), out) < 1e-6
    assert block.to(memory_format=torch.channels_last)(x).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_saving_and_compiling(kind):
    expansion = getattr(kind, "expansion", 1)
    block, other = (make(kind, 8 * expansion, 8, 2, **sizes).eval() for _ in range(2))
    nn.init.normal_(block.cycle.prolongations[0].map.weight)
    x = torch.randn(2, 8 * expansion, 6, 6)
    other.load_state_dict(block.state_dict())
    assert torch.equal(other(x), block(x))
    buffer = io.BytesIO()
    torch.save(block, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), block(x))


def test_compiles():
    block = make(MGICInvertedResidual2d, 8, 16, 2, **sizes).eval()
    x = torch.randn(2, 8, 6, 6)
    compiled = torch.compile(block, backend="aot_eager")
    assert oracles.relative_difference(compiled(x), block(x)) < 1e-6


def test_transfers_and_device_are_arguments():
    block = MGICBasicBlock2d(16, 16, transfer_init="average", device="meta", dtype=torch.float64, **sizes)
    assert {(p.device.type, p.dtype) for p in block.parameters()} == {("meta", torch.float64)}
    average = MGICInvertedResidual2d(16, 32, 16, transfer_init="average", **sizes)
    assert torch.equal(average.cycle.restrictions[0].map.weight, torch.full((8, 4), 0.25))
    assert isinstance(average.cycle.restrictions[0].map, GroupedLinear)


def test_repr_shows_the_plan():
    assert repr(MGICBasicBlock2d(16, 64, 2, group_size=16, coarse_size=32)) == (
        "MGICBasicBlock2d(16, 64, stride=2, ChannelHierarchy(64 in 4 groups -> 32 dense))"
    )
    assert repr(MGICBottleneck2d(64, 64, coarse_size=32)) == (
        "MGICBottleneck2d(64, 256, stride=1, ChannelHierarchy(64 in 2 groups -> 32 dense), "
        "4 channels a plane)"
    )
    assert repr(MGICInvertedResidual2d(16, 64, 24)) == (
        "MGICInvertedResidual2d(16, 24, stride=1, ChannelHierarchy(24 dense))"
    )


def test_errors_name_value_and_remedy():
    with pytest.raises(ValueError, match="base_width=64 only, got 4; its groups come from group_size"):
        MGICBottleneck2d(64, 16, base_width=4)
    with pytest.raises(ValueError, match="attn_layer=None only, got 'se'"):
        MGICBasicBlock2d(64, 64, attn_layer="se")
    with pytest.raises(TypeError, match="no argument 'group_sise'"):
        MGICBasicBlock2d(64, 64, group_sise=4)
    with pytest.raises(ValueError, match="group_size must be at least 1, got 0"):
        MGICInvertedResidual2d(16, 64, 24, group_size=0)
    with pytest.raises(ValueError, match="min_levels=3 cannot be reached"):
        MGICBasicBlock2d(4, 4, min_levels=3)


@pytest.mark.parametrize("kind", [MGICBasicBlock2d, MGICInvertedResidual2d])
@pytest.mark.parametrize(("init", "negative"), [("random", False), ("average", False), ("signed", True)])
def test_starts_of_the_transfers_are_as_documented(kind, init, negative):
    assert f'``"{init}"``' in kind.__doc__
    block = make(kind, 16, 16, transfer_init=init, **sizes)
    rows = [p for name, p in block.named_parameters() if "restrictions" in name]
    assert [bool((p < 0).any()) for p in rows] == [negative] * len(rows) != []


@pytest.mark.parametrize("block", [MGICBasicBlock2d, MGICBottleneck2d])
def test_features_of_a_network_by_torchvisions_extractor(block):
    network = torchvision.models.ResNet(block.sized(group_size=16, coarse_size=16), [1, 1, 1, 1]).eval()
    x = torch.randn(1, 3, 32, 32)
    found = create_feature_extractor(network, {"layer1": "fine", "fc": "logits"})(x)
    assert found["fine"].shape == (1, 64 * block.expansion, 8, 8)
    torch.testing.assert_close(found["logits"], network(x))


def test_without_normalisation_the_input_is_left_as_it_is():
    block = MGICBasicBlock2d(
        16, 16, group_size=4, coarse_size=4, norm_layer=lambda width: nn.Identity(), preactivation=True
    )
    x = torch.randn(2, 16, 5, 5)
    kept = x.clone()
    out = block(x)
    for module in block.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    torch.testing.assert_close(out, block(kept))
    assert torch.equal(x, kept)


@pytest.mark.parametrize("act", [nn.GELU, nn.PReLU, nn.Tanh, nn.SiLU])
def test_any_activation(act):
    block = MGICBasicBlock2d(16, 32, act_layer=act, group_size=8, coarse_size=8)
    assert any(type(module) is act for module in block.modules())
    assert block(torch.randn(1, 16, 4, 4)).shape == (1, 32, 4, 4)
