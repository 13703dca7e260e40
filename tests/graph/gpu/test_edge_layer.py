"""EdgeConv by kernels equals EdgeConv by torch's operators, wherever the layer stands."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from triton_kernels import DEVICE, kernels, knn_clouds, operators, random, random_graph

from mgic_geo import EdgeConv, MGICGraphConv
from mgic_geo.complexity import complexity
from mgic_geo.fuse import fuse
from mgic_geo.graph import gpu
from mgic_geo.graph.neighbors import Neighbors


def layer(in_channels, out_channels, groups=1, dtype=torch.float64, **options):
    torch.manual_seed(0)
    conv = EdgeConv(in_channels, out_channels, groups, **options)
    if conv.norm is not None:
        nn.init.normal_(conv.norm.weight)
        nn.init.normal_(conv.norm.bias)
    return conv.to(DEVICE, dtype)


def used(run):
    """What ``run`` gives, and the kernels' operators that it calls."""
    with torch.profiler.profile() as profile:
        out = run()
    return out, {event.key for event in profile.key_averages() if event.key.startswith("mgic_geo::edge")}


def both(module, x, graph):
    """Output, gradients and buffers by kernels, then by operators."""
    found = []
    for path in (kernels, operators):
        twin, leaf = copy.deepcopy(module), x.clone().requires_grad_()
        with path():
            out, names = used(lambda twin=twin, leaf=leaf: twin(leaf, graph))
            out.backward(random(*out.shape, dtype=out.dtype, seed=1))
        found.append([out, leaf.grad, *(p.grad for p in twin.parameters()), *twin.buffers()])
        assert bool(names) == (path is kernels)
    return found


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 40), st.integers(2, 90), st.sampled_from([1, 2, 4]), st.sampled_from([4, 36]),
    st.sampled_from(["relu", "leaky_relu", None]), st.sampled_from(["batch_norm", None]), st.booleans(),
)  # fmt: skip
def test_equals_the_operators(nodes, edges, groups, channels, act, norm, isolated):
    graph = random_graph(nodes, edges, seed=edges, last=nodes - 1 if isolated else None)
    module = layer(8, channels, groups, act=act, norm=norm, bias=norm is None)
    x = random(nodes, 8, dtype=torch.float64) + 3
    for ours, twin in zip(*both(module, x, graph), strict=True):
        torch.testing.assert_close(ours, twin, rtol=1e-7, atol=1e-9)


def test_the_common_part_goes_first():
    graph, x = knn_clouds(2, 30, 6), random(60, 8, dtype=torch.float64) + 1000
    module = layer(8, 16)
    with operators():
        truth = module(x, graph)
    with kernels():
        out = copy.deepcopy(module).float()(x.float(), graph)
    torch.testing.assert_close(out.double(), truth, rtol=1e-3, atol=1e-3)


def test_dense_clouds():
    table = knn_clouds(3, 20, 4).col.view(3, 20, 4) % 20
    x, module = random(3, 20, 8, dtype=torch.float64), layer(8, 16)
    for ours, twin in zip(*both(module, x, table), strict=True):
        torch.testing.assert_close(ours, twin)


@pytest.mark.parametrize("how", ["evaluation", "bipartite", "bias", "smooth"])
def test_what_has_no_kernel_of_its_own_is_right_all_the_same(how):
    graph, x = knn_clouds(2, 15, 4), random(30, 8, dtype=torch.float64)
    module = layer(8, 16, act="elu" if how == "smooth" else "relu", bias=how == "bias")
    inputs = (x, x.clone()) if how == "bipartite" else x
    if how == "evaluation":
        module.eval()
    found = []
    for path in (kernels, operators):
        with path():
            out, names = used(lambda: copy.deepcopy(module)(inputs, graph))
        found.append(out)
        assert not names
    torch.testing.assert_close(*found)


def test_statistics_may_be_the_batchs_for_ever():
    graph, x, module = knn_clouds(2, 15, 4), random(30, 8, dtype=torch.float64), layer(8, 16)
    module.norm = nn.BatchNorm1d(16, track_running_stats=False).to(DEVICE, torch.float64)
    for ours, twin in zip(*both(module.eval(), x, graph), strict=True):
        torch.testing.assert_close(ours, twin)


def test_running_statistics_may_be_an_average():
    graph, x, module = knn_clouds(2, 15, 4), random(30, 8, dtype=torch.float64), layer(8, 16)
    module.norm.momentum = None
    for ours, twin in zip(*both(module, x, graph), strict=True):
        torch.testing.assert_close(ours, twin)


def test_fewer_than_two_edges():
    graph = Neighbors.from_edge_index(torch.tensor([[1], [0]], device=DEVICE), 3)
    x = random(3, 8, dtype=torch.float64)
    with kernels(), pytest.raises(ValueError, match="at least 2 edges in training, got 1"):
        layer(8, 16)(x, graph)
    with kernels():
        assert layer(8, 16, norm=None)(x, graph)[1:].eq(0).all()
        assert layer(8, 16, norm=None)(x, random_graph(3, 0)).eq(0).all()


def test_a_graph_of_other_nodes_or_elsewhere_has_no_kernel():
    module, x = layer(8, 16), random(30, 8, dtype=torch.float64)
    with kernels():
        assert gpu.fits(x, module.lin.weight, knn_clouds(2, 15, 4))
        assert not gpu.fits(x, module.lin.weight, knn_clouds(1, 10, 4))
        elsewhere = Neighbors(torch.arange(31, device="meta"), torch.arange(30, device="meta"), 30)
        assert not gpu.fits(x, module.lin.weight, elsewhere)


def test_autocast():
    graph, x, module = knn_clouds(2, 30, 5), random(60, 8), layer(8, 16, dtype=torch.float32)
    with operators():
        truth = copy.deepcopy(module)(x, graph)
    with kernels(), torch.autocast(DEVICE, torch.bfloat16):
        out = module(x, graph)
        (of_weight,) = torch.autograd.grad(out.float().square().sum(), [module.lin.weight])
    assert out.dtype == torch.bfloat16
    assert of_weight.dtype == torch.float32
    torch.testing.assert_close(out.float(), truth, rtol=0.03, atol=0.03)


def test_compiled_code_sees_one_operator():
    graph, x, module = knn_clouds(2, 15, 4), random(30, 8), layer(8, 16, dtype=torch.float32)
    with kernels():
        expected = copy.deepcopy(module)(x, graph)
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        out, names = used(lambda: compiled(x.requires_grad_(), graph))
        out.sum().backward()
    assert "mgic_geo::edge_norm" in names
    torch.testing.assert_close(out, expected)
    assert x.grad.isfinite().all()


def test_counting_sees_the_products():
    graph, x, module = knn_clouds(2, 15, 4), random(30, 8), layer(8, 16, dtype=torch.float32)
    with kernels():
        ours = complexity(module, x, graph)
    with operators():
        assert ours == complexity(module, x, graph)


def test_function_transforms_follow_the_operators():
    graph, x, module = knn_clouds(1, 9, 3), random(9, 8, dtype=torch.float64), layer(8, 16, norm=None)
    found = []
    for path in (kernels, operators):
        with path():
            found.append(torch.func.grad(lambda x: module(x, graph).square().sum())(x))
    torch.testing.assert_close(*found)


def test_whole_blocks():
    torch.manual_seed(0)
    block = MGICGraphConv(8, 32, EdgeConv, group_size=8, coarse_size=16).to(DEVICE, torch.float64)
    graph, x = knn_clouds(2, 20, 5), random(40, 8, dtype=torch.float64)
    for ours, twin in zip(*both(block, x, graph), strict=True):
        torch.testing.assert_close(ours, twin, rtol=1e-6, atol=1e-8)


def test_fused_blocks():
    torch.manual_seed(0)
    block = MGICGraphConv(8, 32, EdgeConv, group_size=8, coarse_size=16).to(DEVICE, torch.float64)
    graph, x = knn_clouds(2, 20, 5), random(40, 8, dtype=torch.float64)
    with operators(), torch.no_grad():
        block(x, graph)
        expected = block.eval()(x, graph)
    with kernels(), torch.no_grad():
        out, names = used(lambda: fuse(block)(x, graph))
    assert names == {"mgic_geo::edge_max"}
    torch.testing.assert_close(out, expected)


def test_layers_in_half_precision():
    graph, x, module = knn_clouds(2, 30, 5), random(60, 8), layer(8, 16, dtype=torch.float32)
    with operators():
        truth = copy.deepcopy(module)(x, graph)
    half = module.bfloat16()
    with kernels():
        out, names = used(lambda: half(x.bfloat16(), graph))
    assert names == {"mgic_geo::edge_norm"}
    assert half.norm.running_mean.dtype == out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), truth, rtol=0.05, atol=0.05)


@pytest.mark.skipif(DEVICE == "cuda", reason="what asserts on a GPU leaves it unusable")
@pytest.mark.parametrize("source", [14, -1])
def test_compiled_layers_do_not_read_beyond_the_nodes(source):
    """Eager ones name the index; where nobody can look the device asserts."""
    module, x = layer(8, 8, norm=None, dtype=torch.float32).eval(), random(100, 8)[:10]
    good, bad = (torch.tensor([[1, 2, last], [0, 1, 2]]) for last in (4, source))
    with torch.no_grad(), kernels():
        compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, good), module(x, good))
        with pytest.raises(RuntimeError, match="source indices must lie within the nodes"):
            compiled(x, bad)
