import copy

import compiled
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import jvp, vmap

from mgic_geo import GroupedLinear
from mgic_geo.core import linear_native
from mgic_geo.core.pointwise import grouped_linear

pytestmark = compiled.needed


of_any_size = compiled.of_any_size(linear_native)


def step(layer, x):
    return layer(x)


def rows(*shape, mean=0.0):
    return mean + torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0]))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 3, 7, 8, 9, 16, 17, 129, 1023, 1025, 2049]), st.sampled_from([8, 16, 24, 40, 64]),
    st.sampled_from([8, 16, 24, 40, 56, 64]), st.integers(2, 4), st.booleans(), st.sampled_from([0, 1e3]),
    st.sampled_from([1, 2]),
)  # fmt: skip
def test_rows(count, width_in, width_out, groups, bias, mean, threads):
    torch.manual_seed(0)
    layer = GroupedLinear(width_in * groups, width_out * groups, groups, bias)
    with compiled.threads(threads):
        compiled.assert_as_plain(step, layer, [rows(count, width_in * groups, mean=mean)], 2e-6)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([1, 9, 1025]), st.sampled_from([4, 8, 12]), st.sampled_from([4, 8, 16]),
    st.sampled_from([2, 4]), st.booleans(),
)  # fmt: skip
def test_narrow_groups_in_pairs(count, width_in, width_out, groups, bias):
    torch.manual_seed(0)
    layer = GroupedLinear(width_in * groups, width_out * groups, groups, bias)
    compiled.assert_as_plain(step, layer, [rows(count, width_in * groups)], 2e-6)


def test_pairs_and_back():
    blocks = rows(4, 12, 8)
    pairs = linear_native.paired(blocks)
    assert torch.equal(pairs, torch.stack([torch.block_diag(*two) for two in blocks.split(2)]))
    assert torch.equal(linear_native.unpaired(pairs, 4), blocks)
    for wide in (blocks[:, :8], rows(3, 16, 24)):
        assert torch.equal(linear_native.paired(wide), wide)
        assert linear_native.unpaired(wide, len(wide)) is wide


def test_images():
    layer = GroupedLinear(32, 48, 2, bias=True, channel_dim=1)
    x = rows(3, 32, 5, 4)
    last = x.to(memory_format=torch.channels_last)
    compiled.assert_as_plain(step, layer, [last])
    compiled.assert_second_derivatives(lambda layer, x: layer(x).sin(), layer, [last])
    out = layer(last)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, compiled.assert_declines(layer, x))
    compiled.assert_declines(layer, x.flatten(2))
    compiled.assert_declines(GroupedLinear(32, 48, 1, channel_dim=1), last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled.assert_declines(layer, last)


@pytest.mark.parametrize("lead", [(40,), (4, 5), (2, 3, 4)])
def test_leading_axes_and_strides(lead):
    layer = GroupedLinear(32, 48, 2, bias=True)
    compiled.assert_as_plain(step, layer, [rows(*lead, 32)])
    compiled.assert_as_plain(lambda layer, x: layer(x[..., ::2]), layer, [rows(*lead, 64)])
    compiled.assert_as_plain(lambda layer, x: layer(x).expand(3, *lead, 48), layer, [rows(*lead, 32)])


def test_weights_that_are_views():
    weight, bias = rows(16, 48).t(), rows(96)[::2]
    x = rows(20, 32)
    with compiled.counted() as calls:
        out = grouped_linear(x, weight, bias, 2)
    assert calls
    torch.testing.assert_close(out, x @ torch.block_diag(*weight.chunk(2)).t() + bias)


def test_threads_do_not_show():
    torch.manual_seed(0)
    compiled.assert_same_on_threads(step, GroupedLinear(64, 96, 2), [rows(5000, 64)])


def test_second_derivatives():
    torch.manual_seed(0)
    compiled.assert_second_derivatives(
        lambda layer, x: layer(x).sin(), GroupedLinear(32, 48, 2, bias=True), [rows(50, 32)]
    )


def test_only_what_is_asked_for():
    layer, x = GroupedLinear(32, 48, 2, bias=True), rows(30, 32)
    for wanted in (x, *layer.parameters()):
        layer.requires_grad_(False)
        wanted.requires_grad_()
        for create_graph in (False, True):
            with compiled.counted() as calls:
                (grad,) = torch.autograd.grad(layer(x).square().sum(), wanted, create_graph=create_graph)
            assert calls
            assert grad.shape == wanted.shape
        x.requires_grad_(False)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("widths", [(32, 32), (20, 32), (32, 20), (40, 32)])
def test_declines_what_does_not_fit(groups, widths):
    x, weight = rows(20, widths[0]), rows(widths[1], widths[0] // groups)
    fits = groups == 2 and widths == (32, 32)
    assert linear_native.fits(x, weight, None, groups) is fits
    if not fits:
        compiled.assert_declines(lambda: grouped_linear(x, weight, None, groups))


def test_declines():
    layer, x = GroupedLinear(32, 48, 2, bias=True), rows(20, 32)
    compiled.assert_declines(copy.deepcopy(layer).double(), x.double())
    compiled.assert_declines(lambda: vmap(layer)(rows(3, 20, 32)))
    compiled.assert_declines(lambda: jvp(layer, (x,), (torch.ones_like(x),)))
    compiled.assert_declines(lambda: torch.func.grad(lambda x: layer(x).square().sum())(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled.assert_declines(layer, x)
    compiled.assert_declines(torch.compile(layer, backend="eager", fullgraph=True), x)


@pytest.mark.parametrize("width", [16, 48])
def test_sizes_are_checked_before_memory_is_read(width):
    with pytest.raises(RuntimeError):
        grouped_linear(rows(20, width), rows(48, 16), None, 2)
    with pytest.raises(RuntimeError):
        grouped_linear(rows(20, 32), rows(48, 16), rows(47), 2)
