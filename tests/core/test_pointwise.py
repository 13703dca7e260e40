import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgic_geo import GroupedLinear
from mgic_geo.core.pointwise import grouped_linear


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(0, 40), st.booleans(),
    st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_equals_the_block_diagonal_product(size_in, size_out, groups, rows, bias, dtype):
    torch.manual_seed(0)
    layer = GroupedLinear(size_in * groups, size_out * groups, groups, bias).to(dtype)
    x = torch.randn(rows, size_in * groups, dtype=dtype, requires_grad=True)
    twin = oracles.grouped_map(x, layer.weight, layer.bias, groups)
    out = layer(x)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    assert out.dtype == dtype
    assert oracles.relative_difference(out, twin) < tolerance
    upstream = torch.randn_like(twin)
    inputs = [x, *layer.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad(out, inputs, upstream), torch.autograd.grad(twin, inputs, upstream), strict=True
    ):
        assert oracles.relative_difference(ours, theirs) < 10 * tolerance


def test_gradients_by_differences():
    torch.manual_seed(0)
    x, weight, bias = (
        torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in ((5, 6), (4, 3), (4,))
    )
    assert torch.autograd.gradcheck(lambda *inputs: grouped_linear(*inputs, 2), (x, weight, bias))


@pytest.mark.parametrize("rows", [768, 1000])
@pytest.mark.parametrize("groups", [1, 3])
def test_many_rows_with_and_without_a_rest(rows, groups):
    """So many as are convolved in images of equal size, and those that fill none."""
    torch.manual_seed(0)
    layer = GroupedLinear(15, 6, groups, bias=True)
    x = torch.randn(rows, 15)
    torch.testing.assert_close(layer(x), oracles.grouped_map(x, layer.weight, layer.bias, groups))


@pytest.mark.parametrize("lead", [(), (7,), (2, 3), (2, 3, 4)])
def test_leading_axes(lead):
    layer = GroupedLinear(6, 4, groups=2)
    x = torch.randn(*lead, 6)
    assert layer(x).shape == (*lead, 4)
    torch.testing.assert_close(layer(x), oracles.grouped_map(x, layer.weight, None, 2))


@pytest.mark.parametrize("space", [(5,), (3, 4), (2, 3, 4)])
def test_image_axis_equals_the_last_axis(space):
    torch.manual_seed(0)
    last = GroupedLinear(6, 4, groups=2, bias=True)
    image = GroupedLinear(6, 4, groups=2, bias=True, channel_dim=1)
    image.load_state_dict(last.state_dict())
    x = torch.randn(2, 6, *space)
    torch.testing.assert_close(image(x), last(x.movedim(1, -1)).movedim(-1, 1))


def test_half_precision_is_near():
    torch.manual_seed(0)
    layer = GroupedLinear(16, 32, groups=4, bias=True)
    x = torch.randn(64, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    assert oracles.relative_difference(out.float(), layer(x)) < 1e-2


def test_exports_with_any_number_of_rows():
    layer = GroupedLinear(8, 16, 2)
    rows = torch.export.Dim("rows")
    exported = torch.export.export(layer, (torch.randn(6, 8),), dynamic_shapes=({0: rows},))
    for count in (1, 16, 37):
        x = torch.randn(count, 8)
        torch.testing.assert_close(exported.module()(x), layer(x))


@pytest.mark.parametrize("groups", [1, 2])
def test_compiled_code_has_products_for_any_number_of_rows(groups):
    weight, called = torch.randn(6, 8 // groups), []

    def backend(graph, _):
        called.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    run = torch.compile(lambda x: grouped_linear(x, weight, None, groups), backend=backend, dynamic=True)
    for rows in (900, 1000):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(run(x), grouped_linear(x, weight, None, groups))
    assert called
    assert not any("conv" in target for target in called)


def test_one_group_starts_like_linear():
    torch.manual_seed(0)
    ours = GroupedLinear(256, 512)
    torch.manual_seed(0)
    assert torch.equal(ours.weight, nn.Linear(256, 512, bias=False).weight)


def test_an_init_loop_over_linears_and_convolutions_passes_by():
    assert not isinstance(GroupedLinear(4, 4), nn.Linear | nn.Conv1d | nn.Conv2d)


def test_errors_name_value_and_remedy():
    with pytest.raises(ValueError, match=r"groups=4.*in_channels=6.*2 and its divisors do"):
        GroupedLinear(6, 8, groups=4)
    for groups in (0, -1):
        with pytest.raises(ValueError, match=f"groups must divide both widths, got groups={groups}"):
            GroupedLinear(8, 8, groups)
    with pytest.raises(ValueError, match="channel_dim must be -1"):
        GroupedLinear(6, 8, channel_dim=2)
    with pytest.raises(ValueError, match=r"expected 6 channels in dimension -1, got shape \(3, 5\)"):
        GroupedLinear(6, 8)(torch.zeros(3, 5))
    for width in (0, -1):
        with pytest.raises(ValueError, match=f"in_channels must be at least 1, got {width}"):
            GroupedLinear(width, 8)
    for shape in ((3, 6), (3, 6, 1, 1, 1, 1)):
        with pytest.raises(ValueError, match="of 3 to 5 dimensions, got shape"):
            GroupedLinear(6, 8, channel_dim=1)(torch.zeros(shape))


def test_repr():
    assert repr(GroupedLinear(6, 8, 2)) == "GroupedLinear(6, 8, groups=2)"


@pytest.mark.parametrize(
    ("channel_dim", "shapes"), [(-1, [(3, 8), (2, 5, 8)]), (1, [(2, 8, 3), (1, 8, 4, 5)])]
)
def test_is_one_node_for_fx(channel_dim, shapes):
    layer = GroupedLinear(8, 16, 2, channel_dim=channel_dim)
    traced = torch.fx.symbolic_trace(nn.Sequential(layer))
    for shape in shapes:
        x = torch.randn(shape)
        assert torch.equal(traced(x), layer(x))
