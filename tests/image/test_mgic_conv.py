import io
from itertools import pairwise

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgic_geo import MGICConv2d

CASES = [  # kernel, stride, padding, dilation
    (3, 1, 1, 1), (3, 2, 1, 1), (1, 1, 0, 1), (1, 2, 0, 1), (2, 2, 0, 1), (3, 1, 0, 1), (5, 1, 4, 2),
    ((1, 3), (1, 2), (0, 1), 1), (3, 1, "same", 2), (4, 1, "same", 1), (3, 1, "valid", 1),
    (1, 1, 1, 1),
]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(CASES), st.integers(1, 20), st.integers(1, 20), st.integers(1, 8), st.booleans())
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
def test_has_the_shape_of_a_convolution_and_is_linear(case, width_in, width_out, size, bias):
    torch.manual_seed(0)
    kernel, *rest = case
    dense = nn.Conv2d(width_in, width_out, kernel, *rest)
    layer = MGICConv2d(width_in, width_out, kernel, *rest, bias=bias, group_size=size, coarse_size=size)
    x, y = torch.randn(2, 2, width_in, 9, 7, dtype=torch.double)
    layer.double()
    assert layer(x).shape == dense.double()(x).shape
    torch.testing.assert_close(layer(x + y) + layer(0 * x), layer(x) + layer(y))
    twin = layer.widen(oracles.v_cycle(layer.cycle, layer.shortcut(x)))
    torch.testing.assert_close(layer(x), twin + (layer.bias[:, None, None] if bias else 0))


@pytest.mark.parametrize("case", CASES[:6])
@pytest.mark.parametrize("widths", [(16, 16), (8, 16), (16, 8)])
def test_every_output_channel_depends_on_every_input_channel(case, widths):
    torch.manual_seed(0)
    kernel, *rest = case
    layer = MGICConv2d(*widths, kernel, *rest, group_size=2, coarse_size=2, transfer_init="random").double()
    x = torch.randn(1, widths[0], 5, 5, dtype=torch.double)
    coupling = torch.autograd.functional.jacobian(layer, x).abs().sum((0, 2, 3, 4, 6, 7))
    assert coupling.shape == widths[::-1]
    assert bool((coupling > 0).all())


def test_parameters_obey_equation_8_and_grow_linearly():
    layer = MGICConv2d(128, 128, 3, padding=1, bias=False, group_size=16, coarse_size=32)
    count = sum(p.numel() for p in layer.cycle.blocks.parameters())
    assert count == 9 * (16 * 128 + 16 * 64 + 32 * 32)
    for kernel, padding in ((3, 1), (1, 0), (2, 0)):
        counts = [
            sum(
                p.numel()
                for p in MGICConv2d(c, 2 * c, kernel, 2, padding, group_size=8, coarse_size=8).parameters()
            )
            for c in (64, 128, 256)
        ]
        assert all(1.9 < b / a < 2.1 for a, b in pairwise(counts))


def test_identity_levels_make_the_identity():
    layer = MGICConv2d(16, 16, 3, padding=1, bias=False, group_size=4, coarse_size=4)
    for level in layer.cycle.blocks:
        nn.init.dirac_(level.weight, level.groups)
    x = torch.randn(2, 16, 5, 5)
    torch.testing.assert_close(layer(x), x, rtol=1e-5, atol=1e-5)


def test_padding_mode_and_normalised_corrections():
    layer = MGICConv2d(
        16, 16, 3, padding=1, padding_mode="circular", group_size=4, coarse_size=4, norm=nn.BatchNorm2d
    )
    x = torch.randn(2, 16, 6, 6)
    torch.testing.assert_close(layer(x.roll(2, dims=3)), layer(x).roll(2, dims=3), rtol=1e-4, atol=1e-5)
    assert isinstance(layer.cycle.norms[0], nn.BatchNorm2d)


def test_resets_saves_and_shows_its_plan():
    torch.manual_seed(0)
    layer = MGICConv2d(16, 32, 3, 2, 1, dilation=1, group_size=8, coarse_size=8)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.reset_parameters()
    assert all(not torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    torch.save(layer, file := io.BytesIO())
    file.seek(0)
    x = torch.randn(1, 16, 8, 8)
    assert torch.equal(torch.load(file, weights_only=False)(x), layer(x))
    assert "kernel_size=(3, 3), stride=(2, 2), ChannelHierarchy(32 in 4 groups" in repr(layer)
    assert "dilation=(2, 2), bias=False" in repr(MGICConv2d(8, 8, 3, 1, 2, 2, bias=False))


@pytest.mark.parametrize("case", CASES[:6])
def test_one_image_is_a_batch_of_one(case):
    torch.manual_seed(0)
    kernel, *rest = case
    layer = MGICConv2d(8, 16, kernel, *rest, group_size=4, coarse_size=4)
    x = torch.randn(8, 9, 7)
    out = layer(x)
    assert out.shape == nn.Conv2d(8, 16, kernel, *rest)(x).shape
    torch.testing.assert_close(out, layer(x[None])[0])


def test_other_inputs_are_refused():
    layer = MGICConv2d(16, 16, 3, padding=1, coarse_size=8)
    for shape in ((16, 9), (2, 8, 9, 9), (8, 9, 9), (1, 2, 16, 9, 9)):
        with pytest.raises(ValueError, match=r"images \(B, 16, H, W\) or one image \(16, H, W\), got shape"):
            layer(torch.randn(shape))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_is_called_and_asked_as_a_convolution(case):
    layer, x = MGICConv2d(16, 16, *case, coarse_size=8), torch.randn(2, 16, 9, 9)
    assert torch.equal(layer(input=x), layer(x))
    dense = vars(nn.Conv2d(16, 16, *case))
    plain = {name: value for name, value in dense.items() if name[0] != "_"}
    assert {name: vars(layer)[name] for name in plain} == plain


def test_groups_must_stay_one():
    with pytest.raises(ValueError, match="groups must stay 1, got 4"):
        MGICConv2d(16, 16, 3, groups=4)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("widths", [(64, 64), (128, 32), (32, 128)], ids=str)
def test_starts_at_the_scale_of_a_convolution(kernel, widths):
    torch.manual_seed(0)
    x = torch.randn(4, widths[0], 32, 32)
    sides = [
        nn.Conv2d(*widths, kernel, padding=kernel // 2, bias=False),
        MGICConv2d(*widths, kernel, padding=kernel // 2, bias=False, group_size=8, coarse_size=8),
    ]
    dense, ours = (side(x).std() for side in sides)
    assert 0.75 < ours / dense < 1.33


def test_autocast_gives_what_a_convolution_gives():
    layer, x = MGICConv2d(16, 16, 3, padding=1, coarse_size=8), torch.randn(2, 16, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == nn.Conv2d(16, 16, 3)(x).dtype == torch.bfloat16


def test_fx_traces_it():
    layer, x = MGICConv2d(16, 32, 3, 2, 1, group_size=8, coarse_size=8), torch.randn(2, 16, 6, 5)
    assert torch.equal(torch.fx.symbolic_trace(layer)(x), layer(x))
