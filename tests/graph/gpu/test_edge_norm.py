import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from triton_kernels import DEVICE, kernels, knn_clouds, random, random_graph

from mgic_geo.graph.gpu.edge_norm import edge_norm
from mgic_geo.graph.gpu.graph import graph_tensors


def by_edge(uv, weight, bias, graph, groups, eps, slope):
    """All edges normalised, then the maximum of each node."""
    u, v = (part.flatten(1) for part in uv.view(uv.size(0), groups, 2, -1).unbind(2))
    edges = u[graph.row] + v[graph.col]
    edges = F.leaky_relu(F.batch_norm(edges, None, None, weight, bias, True, 0.0, eps), slope)
    out = torch.zeros_like(u)
    place = graph.row.unsqueeze(1).expand_as(edges)
    return out.scatter_reduce(0, place, edges, "amax", include_self=False)


def inputs(nodes, channels, dtype):
    uv = random(nodes, 2 * channels, dtype=dtype)
    weight, bias = random(channels, dtype=dtype, seed=1).abs() + 0.1, random(channels, dtype=dtype, seed=2)
    return uv, weight, bias


def with_gradients(function, tensors, upstream):
    leaves = [x.detach().requires_grad_() for x in tensors]
    out = function(*leaves)
    return out, *torch.autograd.grad(out, leaves, upstream)


def assert_equals_by_edge(tensors, graph, upstream):
    """In two groups."""
    with kernels():
        ours = with_gradients(lambda *x: edge_norm(*x, graph, 2, 1e-5, 0.2)[0], tensors, upstream)
    plain = [x.contiguous() for x in tensors]
    twin = with_gradients(lambda *x: by_edge(*x, graph, 2, 1e-5, 0.2), plain, upstream)
    for found, expected in zip(ours, twin, strict=True):
        torch.testing.assert_close(found, expected)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 40), st.integers(2, 90), st.sampled_from([1, 5, 130]), st.integers(1, 3),
    st.sampled_from([0.0, 0.2, 1.0]),
)  # fmt: skip
def test_equals_edge_by_edge(nodes, edges, group, groups, slope):
    graph = random_graph(nodes, edges, seed=edges)
    # Where edges repeat torch's amax splits the gradient.
    graph = type(graph).from_edge_index(graph.edge_index.unique(dim=1), nodes)
    if graph.col.numel() < 2:
        return
    tensors = inputs(nodes, groups * group, torch.float64)
    some = (graph.in_degree > 0).unsqueeze(1)
    upstream = random(nodes, groups * group, dtype=torch.float64, seed=3) * some
    with kernels():
        ours = with_gradients(lambda *x: edge_norm(*x, graph, groups, 1e-3, slope)[0], tensors, upstream)
    twin = with_gradients(lambda *x: by_edge(*x, graph, groups, 1e-3, slope), tensors, upstream)
    for found, expected in zip((ours[0] * some, *ours[1:]), twin, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_moments_do_not_cancel():
    graph, channels = knn_clouds(4, 50, 10), 20
    uv = random(200, 2 * channels, dtype=torch.float64) + 1000
    u, v = uv.view(200, 2, channels).unbind(1)
    var, mean = torch.var_mean(u[graph.row] + v[graph.col], 0, correction=0)
    one = torch.ones(channels, device=DEVICE)
    with kernels():
        _, ours_mean, ours_var = edge_norm(uv.float(), one, 0 * one, graph, 1, 1e-5, 1.0)
    torch.testing.assert_close(ours_mean.double(), mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        ours_var.double(), var, rtol=1e-3, atol=0
    )  # the input's own rounding: 6e-5 of 2


def test_tiles_of_moments_are_joined():
    """More tiles than one program reads at once, of unequal degrees."""
    graph = random_graph(1500, 4000, last=1300)
    uv, weight, bias = inputs(1500, 128, torch.float64)
    u, v = uv.view(1500, 2, 128).unbind(1)
    var, mean = torch.var_mean(u[graph.row] + v[graph.col], 0, correction=0)
    with kernels():
        _, ours_mean, ours_var = edge_norm(uv, weight, bias, graph, 1, 1e-5, 1.0)
    torch.testing.assert_close(ours_mean, mean)
    torch.testing.assert_close(ours_var, var)


def test_a_scale_of_zero_has_the_gradient_of_ties():
    graph = knn_clouds(2, 9, 4)
    uv, weight, bias = inputs(18, 6, torch.float64)
    weight[2] = 0
    upstream = random(18, 6, dtype=torch.float64, seed=3)
    assert_equals_by_edge((uv, weight, bias), graph, upstream)


def test_numbers_may_lie_otherwise():
    graph = knn_clouds(2, 9, 4)
    uv, weight, bias = inputs(18, 6, torch.float64)
    apart = uv.t().contiguous().t(), weight.repeat_interleave(2)[::2], bias.repeat_interleave(3)[::3]
    assert not any(x.is_contiguous() for x in apart)
    upstream = random(6, 18, dtype=torch.float64, seed=3).t()
    assert_equals_by_edge(apart, graph, upstream)


def test_half_precision_normalises_in_float32():
    graph = knn_clouds(2, 30, 5)
    uv, weight, bias = inputs(60, 16, torch.float32)
    uv = uv.bfloat16()
    with kernels():
        out, mean, var = edge_norm(uv, weight, bias, graph, 1, 1e-5, 0.2)
    assert (out.dtype, mean.dtype, var.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    torch.testing.assert_close(out, by_edge(uv.float(), weight, bias, graph, 1, 1e-5, 0.2).bfloat16())


def test_gradients_of_gradients():
    graph = random_graph(4, 9, last=3)
    uv, weight, bias = (x.requires_grad_() for x in inputs(4, 2, torch.float64))
    some = (graph.in_degree > 0).unsqueeze(1)

    def step(uv, weight, bias):
        return edge_norm(uv, weight, bias, graph, 2, 0.1, 0.2)[0] * some

    with kernels():
        assert torch.autograd.gradcheck(step, (uv, weight, bias))
        assert torch.autograd.gradgradcheck(step, (uv, weight, bias))


# opcheck itself reads the gradient of a tensor that is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_operators_are_registered_soundly():
    graph = random_graph(6, 15)
    leaves = [x.requires_grad_() for x in inputs(6, 4, torch.float32)]
    with kernels():
        rest = (*graph_tensors(graph, True), 2, 1e-5, 0.2, False)
        torch.library.opcheck(torch.ops.mgic_geo.edge_norm, (*leaves, *rest))
