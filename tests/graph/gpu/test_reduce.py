import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton_kernels import DEVICE, kernels, knn_clouds, operators, random, random_graph

from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.graph.reduce import neighbor_max, neighbor_sum

OPERATORS = {"max": neighbor_max, "sum": neighbor_sum}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 40), st.integers(0, 90), st.sampled_from([1, 3, 16, 130]), st.sampled_from(["max", "sum"]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)  # fmt: skip
def test_equals_torchs_operators(nodes, edges, channels, how, dtype):
    graph = random_graph(nodes, edges, seed=edges)
    y, upstream = random(nodes, channels, dtype=dtype), random(nodes, channels, dtype=dtype, seed=1)
    found = []
    for path in (kernels, operators):
        with path():
            leaf = y.clone().requires_grad_()
            out = OPERATORS[how](leaf, graph)
            found.append((out, *torch.autograd.grad(out, leaf, upstream)))
    assert found[0][0].dtype == dtype
    if how == "max":
        assert torch.equal(found[0][0], found[1][0])
    for ours, twin in zip(*found, strict=True):
        torch.testing.assert_close(ours, twin)


def test_clouds_name_their_own_nodes():
    graph, y = knn_clouds(3, 17, 4), random(51, 5)
    with kernels():
        out, best = torch.ops.mgic_geo.neighbor_max(y, graph.rowptr, graph.col, 3)
    assert best.max() < 17
    assert torch.equal(y.view(3, 17, 5).gather(1, best.view(3, 17, 5).long()).view(51, 5), out)


def test_a_hub_gathers_from_all():
    nodes = 300
    hub = torch.stack([torch.arange(nodes), torch.zeros(nodes, dtype=torch.long)]).to(DEVICE)
    graph, y = Neighbors.from_edge_index(hub, nodes), random(nodes, 3, dtype=torch.float64)
    with kernels():
        largest, total = neighbor_max(y, graph), neighbor_sum(y, graph)
    assert torch.equal(largest[0], y.amax(0))
    torch.testing.assert_close(total[0], y.sum(0))
    assert not largest[1:].any()
    assert not total[1:].any()


def test_sources_may_be_others():
    pairs = torch.tensor([[0, 4, 2, 2], [0, 0, 1, 2]], device=DEVICE)
    graph, y = Neighbors.from_edge_index(pairs, 3, 5), random(5, 4)
    with kernels():
        assert torch.equal(neighbor_max(y, graph), torch.stack([torch.maximum(y[0], y[4]), y[2], y[2]]))
        assert torch.equal(neighbor_sum(y, graph), torch.stack([y[0] + y[4], y[2], y[2]]))


def test_nan_stays_nan():
    graph, y = knn_clouds(1, 9, 4), random(9, 2)
    y[5, 1] = float("nan")
    with kernels():
        out = neighbor_max(y, graph)
    assert torch.equal(out.isnan()[:, 1], (graph.col.view(9, 4) == 5).any(1))
    assert not out[:, 0].isnan().any()


@pytest.mark.parametrize("value", [float("-inf"), -3.4e38])
def test_the_least_values_are_maxima_too(value):
    graph = knn_clouds(1, 6, 2)
    with kernels():
        assert torch.equal(
            neighbor_max(torch.full((6, 3), value, device=DEVICE), graph),
            torch.full((6, 3), value, device=DEVICE),
        )


def test_a_graph_may_lie_otherwise():
    """Put together by hand from a list of pairs, say."""
    pairs = torch.tensor([[1, 0], [2, 0], [0, 1], [2, 1], [0, 2], [1, 2]], device=DEVICE)
    rowptr = torch.tensor([0, 9, 2, 9, 4, 9, 6, 9], device=DEVICE)[::2]
    graph, y = Neighbors(rowptr, pairs[:, 0], 3), torch.arange(3.0, device=DEVICE).view(3, 1)
    with kernels():
        assert neighbor_sum(y, graph).flatten().tolist() == [3, 2, 1]
        assert neighbor_max(y, graph).flatten().tolist() == [2, 2, 1]
