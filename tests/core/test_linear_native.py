import copy

import compiled
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import jvp, vmap

from mgic_geo import GroupedLinear
from mgic_geo.core import linear_native
from mgic_geo.core.pointwise import added_linear, grouped_linear

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


def added(layer, x, start):
    return added_linear(x, layer.weight, start)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([1, 7, 8, 9, 17, 1025]), st.sampled_from([8, 16, 24, 64, 72, 200]),
    st.sampled_from([8, 16, 40, 64, 72]), st.booleans(), st.sampled_from([1, 2]),
)  # fmt: skip
def test_on_top_of_rows_or_a_bias(count, width_in, width_out, bias, threads):
    torch.manual_seed(0)
    start = rows(width_out) if bias else rows(count, width_out)
    with compiled.threads(threads):
        compiled.assert_as_plain(
            added, GroupedLinear(width_in, width_out), [rows(count, width_in), start], 2e-6
        )


def test_on_top_of_nothing_or_of_strided_rows():
    layer = GroupedLinear(32, 48)
    compiled.assert_as_plain(lambda layer, x: added_linear(x, layer.weight, None), layer, [rows(40, 32)])
    strided = [rows(40, 64), rows(48, 40)]
    compiled.assert_as_plain(lambda layer, x, s: added(layer, x[:, ::2], s.t()), layer, strided)
    compiled.assert_as_plain(
        lambda layer, x, s: added(layer, x, s).expand(2, 40, 48), layer, [rows(40, 32), rows(48)]
    )
    compiled.assert_same_on_threads(added, GroupedLinear(64, 96), [rows(5000, 64), rows(5000, 96)])


@pytest.mark.parametrize("shape", [(48,), (50, 48)])
def test_second_derivatives_on_top(shape):
    torch.manual_seed(0)
    step = lambda layer, x, start: added(layer, x, start).sin()  # noqa: E731
    compiled.assert_second_derivatives(step, GroupedLinear(32, 48), [rows(50, 32), rows(*shape)])


def test_on_top_declines_what_does_not_fit():
    for x, weight, start in (
        (rows(20, 20), rows(48, 20), rows(48)),
        (rows(20, 32), rows(44, 32), rows(44)),
        (rows(20, 32).double(), rows(48, 32).double(), None),
    ):
        compiled.assert_declines(added_linear, x, weight, start)
    layer, x, start = GroupedLinear(32, 48), rows(20, 32), rows(48)
    compiled.assert_declines(lambda: vmap(added, (None, 0, None))(layer, rows(3, 20, 32), start))
    compiled.assert_declines(
        torch.compile(added_linear, backend="eager", fullgraph=True), x, layer.weight, start
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled.assert_declines(added, layer, x, start)
    for wrong in (rows(47), rows(21, 48)):
        with pytest.raises(RuntimeError):
            added(layer, x, wrong)


@pytest.mark.parametrize("lead", [(40,), (4, 5), (2, 3, 4)])
def test_leading_axes_and_strides(lead):
    layer = GroupedLinear(32, 48, 2, bias=True)
    compiled.assert_as_plain(step, layer, [rows(*lead, 32)])
    compiled.assert_as_plain(lambda layer, x: layer(x[..., ::2]), layer, [rows(*lead, 64)])
    compiled.assert_as_plain(lambda layer, x: layer(x).expand(3, *lead, 48), layer, [rows(*lead, 32)])


@pytest.mark.parametrize("groups", [1, 2])
def test_an_upstream_gradient_that_is_one_number_for_all(groups):
    """As of a sum, whose gradient has no memory of its own."""
    x, weight = rows(40, 32).requires_grad_(), rows(32, 32 // groups).requires_grad_()
    out = added_linear(x, weight, None) if groups == 1 else grouped_linear(x, weight, None, groups)
    with compiled.counted() as calls:
        found = torch.autograd.grad(out.sum(), (x, weight), retain_graph=True)
    assert len(calls) == 2
    for ours, expected in zip(found, torch.autograd.grad(out, (x, weight), torch.ones(40, 32)), strict=True):
        assert torch.equal(ours, expected)


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
    compiled.assert_declines(GroupedLinear(12, 12, 3), rows(20, 12))  # no two narrow groups for each
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
