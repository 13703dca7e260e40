import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision.models import mobilenetv3 as tv_mobilenet
from torchvision.models import resnet as tv_resnet

from mgic_geo import BasicBlock2d, Bottleneck2d, InvertedResidual2d, complexity
from mgic_geo.image.blocks import SqueezeExcite2d, make_divisible, squeeze_width


def image(channels, *, size=5, batch=2):
    torch.manual_seed(1)
    return torch.randn(batch, channels, size, size, dtype=torch.double, requires_grad=True)


def stirred(block):
    """In double precision, with normalisations that have left their start."""
    torch.manual_seed(2)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return block.double()


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([BasicBlock2d, Bottleneck2d]), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4),
    st.integers(1, 2), st.booleans(), st.booleans(),
)  # fmt: skip
def test_groups_are_small_residual_blocks_side_by_side(kind, groups, c_in, planes, stride, preact, training):
    block = stirred(kind(c_in * groups, planes * groups, stride, groups=groups, preactivation=preact))
    small = kind(c_in, planes, stride, preactivation=preact).double().train(training)
    x = image(c_in * groups)
    ours = block.train(training)(x)
    assert ours.shape == (2, planes * groups * kind.expansion, -(-5 // stride), -(-5 // stride))
    inputs = [x, *block.parameters()]
    oracles.assert_same_gradients(ours, oracles.side_by_side(block, small, x, groups), inputs, inputs)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.sampled_from([3, 5]),
    st.integers(1, 2), st.integers(0, 2), st.booleans(),
)  # fmt: skip
def test_groups_are_small_inverted_residuals_side_by_side(
    groups, c_in, expanded, out, kernel, stride, squeeze, training
):
    def make(groups):
        widths = [width * groups for width in (c_in, expanded, out)]
        return InvertedResidual2d(*widths, kernel, stride, squeeze * groups, groups)

    block, small = stirred(make(groups)), make(1).double().train(training)
    x = image(c_in * groups)
    ours = block.train(training)(x)
    inputs = [x, *block.parameters()]
    oracles.assert_same_gradients(ours, oracles.side_by_side(block, small, x, groups), inputs, inputs)


def assert_equals_twin(block, twin, x):
    """Outputs and gradients, after the twin took the block's weights by name."""
    twin.load_state_dict(block.state_dict())
    theirs = dict(twin.named_parameters())
    ours, named = block(x), dict(block.named_parameters())
    oracles.assert_same_gradients(ours, twin(x), [x, *named.values()], [x, *(theirs[name] for name in named)])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("kind", "twin"), [(BasicBlock2d, tv_resnet.BasicBlock), (Bottleneck2d, tv_resnet.Bottleneck)]
)
def test_equals_torchvisions_residual_blocks(kind, twin, stride):
    planes, downsample = 16 // kind.expansion, None
    if stride == 2:
        downsample = nn.Sequential(nn.Conv2d(16, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
    block = stirred(kind(16, planes, stride))
    assert_equals_twin(block, twin(16, planes, stride, downsample).double(), image(16))


def test_bottleneck_is_equation_2():
    block = stirred(Bottleneck2d(16, 4, preactivation=True)).train()
    x = image(16)

    def normalized(x, norm):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
        return (x - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]

    out = F.conv2d(normalized(x, block.bn1).relu(), block.conv1.weight)
    out = F.conv2d(normalized(out, block.bn2).relu(), block.conv2.weight, padding=1)
    out = F.conv2d(normalized(out, block.bn3).relu(), block.conv3.weight)
    oracles.assert_same_gradients(block(x), x + out, [x, *block.parameters()], [x, *block.parameters()])


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize(("c_in", "expanded", "out", "stride"), [(8, 24, 8, 1), (8, 8, 8, 1), (8, 24, 16, 2)])
def test_equals_torchvisions_inverted_residual(c_in, expanded, out, stride, squeeze):
    squeezed = squeeze_width(expanded) if squeeze else 0
    block = stirred(InvertedResidual2d(c_in, expanded, out, 5, stride, squeezed))
    row = tv_mobilenet.InvertedResidualConfig(c_in, 5, expanded, out, squeeze, "HS", stride, 1, 1.0)
    assert_equals_twin(block, tv_mobilenet.InvertedResidual(row, nn.BatchNorm2d).double(), image(c_in))


def test_multiply_adds_of_groups_depthwise_and_squeeze():
    x = torch.randn(1, 16, 6, 6)
    grouped = complexity(BasicBlock2d(16, 16, groups=4), x)
    assert grouped.multiply_adds == 36 * 2 * 9 * 16 * 4
    assert grouped.parameters == 2 * 9 * 16 * 4 + 4 * 16
    block = complexity(InvertedResidual2d(16, 32, 16, 3, 1, 8, groups=2), x)
    assert block.multiply_adds == 36 * (2 * 16 * 32 // 2 + 9 * 32) + 2 * 32 * 8 // 2
    with torch.device("meta"):
        meta = complexity(InvertedResidual2d(16, 32, 16, 3, 1, 8, groups=2), torch.empty(1, 16, 6, 6))
    assert meta == block


@pytest.mark.parametrize(
    ("block", "spacings"),
    [
        (BasicBlock2d(8, 8, dilation=2), [2, 2]),
        (Bottleneck2d(8, 2, dilation=2), [1, 2, 1]),
        (InvertedResidual2d(8, 16, 8, 5, dilation=2), [1, 2, 1]),
    ],
)
def test_dilation_spaces_the_kernels_and_keeps_the_size(block, spacings):
    assert [m.dilation[0] for m in block.modules() if isinstance(m, nn.Conv2d)] == spacings
    assert block(torch.randn(1, 8, 7, 7)).shape == (1, 8, 7, 7)


def test_inverted_residuals_with_a_stride_have_no_residual():
    assert InvertedResidual2d(8, 16, 8, stride=2)(torch.randn(1, 8, 7, 7)).shape == (1, 8, 4, 4)


@pytest.mark.parametrize(
    "block",
    [BasicBlock2d(8, 8, 1, groups=2), Bottleneck2d(8, 2, groups=2), InvertedResidual2d(8, 16, 8, 3, 1, 4, 2)],
)
def test_channels_last_input(block):
    torch.manual_seed(0)
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(block.eval()(x.to(memory_format=torch.channels_last)), block(x))


def test_squeeze_excite_gates_each_group_by_its_own_means():
    torch.manual_seed(0)
    gate = SqueezeExcite2d(8, 4, groups=2)
    x = torch.randn(1, 8, 3, 3)
    changed = x.clone()
    changed[:, :4] += 1
    torch.testing.assert_close(gate(changed)[:, 4:], gate(x)[:, 4:])


@pytest.mark.parametrize(
    ("value", "rounded"), [(1, 8), (9.6, 16), (11, 16), (67.2, 64), (96, 96), (168.4, 168)]
)
def test_widths_divisible_by_8(value, rounded):
    assert make_divisible(value) == rounded
    assert rounded >= 0.9 * value


def test_errors_name_value_and_remedy():
    with pytest.raises(ValueError, match=r"groups=4.*in_channels=6.*2 and its divisors do"):
        BasicBlock2d(6, 8, groups=4)
    with pytest.raises(ValueError, match=r"kernel_size must be odd.*got 4"):
        InvertedResidual2d(4, 8, 4, kernel_size=4)
