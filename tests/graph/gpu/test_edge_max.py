import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton_kernels import DEVICE, kernels, knn_clouds, random, random_graph

from mgic_geo.graph.gpu.edge_max import edge_max
from mgic_geo.graph.gpu.graph import graph_tensors
from mgic_geo.graph.neighbors import Neighbors


def by_edge(uv, graph, groups):
    u, v = (part.flatten(1) for part in uv.view(uv.size(0), groups, 2, -1).unbind(2))
    rows = []
    for node in range(uv.size(0)):
        sources = graph.col[graph.row == node]
        rows.append((u[node] + v[sources]).amax(0) if len(sources) else 0 * u[node])
    return torch.stack(rows)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(0, 80), st.sampled_from([1, 5, 130]), st.integers(1, 3))
def test_equals_node_by_node(nodes, edges, group, groups):
    graph = random_graph(nodes, edges, seed=edges)
    uv = random(nodes, 2 * groups * group, dtype=torch.float64).requires_grad_()
    upstream = random(nodes, groups * group, dtype=torch.float64, seed=1)
    with kernels():
        ours = edge_max(uv, graph, groups)
        (gradient,) = torch.autograd.grad(ours, uv, upstream)
    distinct = random_graph(nodes, edges, seed=edges)
    pairs = distinct.edge_index.unique(dim=1)  # where edges repeat torch's amax splits the gradient
    twin = by_edge(uv, type(graph).from_edge_index(pairs, nodes), groups)
    torch.testing.assert_close(ours, twin)
    torch.testing.assert_close(gradient, torch.autograd.grad(twin, uv, upstream)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types(dtype):
    graph, uv = knn_clouds(2, 20, 5), random(40, 64).to(dtype)
    with kernels():
        out = edge_max(uv, graph, 2)
    assert out.dtype == dtype
    torch.testing.assert_close(out, by_edge(uv.double(), graph, 2).to(dtype))


def test_features_may_lie_otherwise():
    graph, uv = knn_clouds(2, 20, 5), random(64, 40)
    with kernels():
        torch.testing.assert_close(edge_max(uv.t(), graph, 2), by_edge(uv.t().contiguous(), graph, 2))


def test_a_graph_may_lie_otherwise():
    graph, uv = random_graph(20, 60), random(20, 4)
    rowptr, col = (torch.stack([x, x], 1)[:, 0] for x in (graph.rowptr, graph.col.int()))
    with kernels():
        twin = edge_max(uv, Neighbors(rowptr, col, 20), 1)
    torch.testing.assert_close(twin, by_edge(uv, graph, 1))


def test_ranks_may_outgrow_a_byte():
    nodes = 300
    everyone = torch.arange(nodes).repeat(2, 1)  # each of two rows
    hubs = Neighbors.from_edge_index(
        torch.stack([everyone.flatten(), torch.arange(2).repeat_interleave(nodes)]).to(DEVICE), nodes
    )
    full = Neighbors.from_table(everyone[:1].expand(nodes, nodes).to(DEVICE))
    uv, upstream = random(nodes, 2), random(nodes, 1, seed=1)
    uv[280, 1] = 9
    for graph in (hubs, full):
        leaf = uv.clone().requires_grad_()
        with kernels():
            edge_max(leaf, graph, 1).backward(upstream)
        assert leaf.grad[:, 1].nonzero().tolist() == [[280]]


def test_gradients_of_gradients():
    graph = random_graph(4, 9, last=3)
    uv = random(4, 4, dtype=torch.float64).requires_grad_()
    with kernels():
        assert torch.autograd.gradcheck(lambda uv: edge_max(uv, graph, 2), uv)
        assert torch.autograd.gradgradcheck(lambda uv: edge_max(uv, graph, 2) ** 2, uv)


# opcheck itself reads the gradient of a tensor that is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_operators_are_registered_soundly():
    graph, uv = random_graph(6, 15), random(6, 8)
    tensors, best = graph_tensors(graph, True), torch.zeros(6, 4, dtype=torch.int32, device=uv.device)
    with kernels():
        torch.library.opcheck(torch.ops.mgic_geo.edge_max, (uv.requires_grad_(), *tensors, 2, False))
        rest = tensors[0], *tensors[2:]
        torch.library.opcheck(torch.ops.mgic_geo.edge_max_grad, (random(6, 4), best, *rest, 2))


def test_many_gradients_at_once():
    graph, uv = random_graph(5, 12), random(5, 8, dtype=torch.float64).requires_grad_()
    upstream = random(3, 5, 4, dtype=torch.float64, seed=1)
    with kernels():
        out = edge_max(uv, graph, 2)
        (batched,) = torch.autograd.grad(out, uv, upstream, is_grads_batched=True, retain_graph=True)
        single = [torch.autograd.grad(out, uv, one, retain_graph=True)[0] for one in upstream]
    torch.testing.assert_close(batched, torch.stack(single))
