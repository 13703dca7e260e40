import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgic_geo import knn
from mgic_geo.graph import reduce
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.graph.reduce import neighbor_max, neighbor_sum
from mgic_geo.native import plain_torch

OPERATORS = {"max": neighbor_max, "sum": neighbor_sum}


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12), st.integers(0, 60), st.integers(1, 5), st.sampled_from(["max", "sum"]),
    st.sampled_from([torch.float32, torch.float64]),
)  # fmt: skip
def test_equals_node_by_node(nodes, edges, channels, how, dtype):
    generator = torch.Generator().manual_seed(nodes + edges)
    source, target = torch.randint(nodes, (2, edges), generator=generator)
    y = torch.randn(nodes, channels, dtype=dtype, generator=generator, requires_grad=True)
    ours = OPERATORS[how](y, Neighbors.from_edge_index(torch.stack([source, target]), nodes))
    twin = oracles.neighbor_reduce(y, source, target, nodes, how)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, twin)
    upstream = torch.randn(twin.shape, dtype=dtype, generator=generator)
    (gradient,) = torch.autograd.grad(ours, y, upstream)
    if how == "max":  # edges may repeat, where torch's amax splits the gradient: compare with distinct ones
        distinct = torch.stack([source, target]).unique(dim=1)
        twin = oracles.neighbor_reduce(y, *distinct, nodes, how)
    (expected,) = torch.autograd.grad(twin, y, upstream, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_paths_agree_bit_for_bit(dtype):
    torch.manual_seed(0)
    neighbors = Neighbors.from_table(knn(torch.randn(5, 40, 3), 7))
    y = torch.randn(200, 9).to(dtype)
    fast = reduce._max(y, neighbors.rowptr, neighbors.col, neighbors.clouds)
    loop = reduce._max_by_rank(y, neighbors.rowptr, neighbors.col, neighbors.clouds)
    assert all(torch.equal(a, b) for a, b in zip(fast, loop, strict=True))
    assert torch.equal(y.view(5, 40, 9).gather(1, fast[1].view(5, 40, 9).long()).view(200, 9), fast[0])


def test_the_packed_maximum_keeps_every_value():
    values = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.0, -1.0]).unsqueeze(1)
    itself = Neighbors.from_table(torch.arange(8).unsqueeze(1))
    assert torch.equal(neighbor_max(values, itself), values)
    pairs = torch.combinations(torch.arange(8))
    graph = Neighbors(torch.arange(0, 2 * len(pairs) + 1, 2), pairs.flatten(), 8)
    assert torch.equal(neighbor_max(values, graph), values[pairs].amax(1))


def test_nan_stays_nan_and_has_a_gradient():
    y = torch.randn(6, 4)
    y[2, 1] = float("nan")
    neighbors = Neighbors.from_table(torch.tensor([[[1, 2], [2, 3], [3, 4], [4, 5], [5, 0], [0, 1]]]))
    with plain_torch():
        out = neighbor_max(y.requires_grad_(), neighbors)
        out.nansum().backward()
    assert out.isnan().nonzero().tolist() == [[0, 1], [1, 1]]
    assert y.grad.isfinite().all()
    assert y.grad.sum() == 22


def test_chunks_do_not_show(monkeypatch):
    torch.manual_seed(0)
    neighbors = Neighbors.from_table(knn(torch.randn(7, 30, 3), 4))
    y = torch.randn(210, 6, requires_grad=True)
    results = []
    for chunk in (1, 500, 2**18):
        monkeypatch.setattr(reduce, "_CHUNK", chunk)
        out = neighbor_max(y, neighbors)
        results.append((out, *torch.autograd.grad(out.sum(), y)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("how", ["max", "sum"])
def test_gradients_by_differences(how):
    torch.manual_seed(0)
    neighbors = Neighbors.from_edge_index(torch.randint(6, (2, 20)), 6)
    y = torch.randn(6, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: OPERATORS[how](y, neighbors), y)
    assert torch.autograd.gradgradcheck(lambda y: OPERATORS[how](y.square(), neighbors).square(), y)


@pytest.mark.parametrize("how", ["max", "sum"])
def test_errors_name_the_value(how):
    neighbors = Neighbors.from_table(knn(torch.randn(2, 30, 3), 4))
    with pytest.raises(
        ValueError, match=r"each of the graph's 60 sources, on cpu; got shape \(59, 3\) on cpu"
    ):
        OPERATORS[how](torch.ones(59, 3), neighbors)
    with pytest.raises(ValueError, match=r"on cpu; got shape \(60, 3\) on meta"):
        OPERATORS[how](torch.ones(60, 3, device="meta"), neighbors)


def test_half_precision():
    torch.manual_seed(0)
    neighbors = Neighbors.from_table(knn(torch.randn(2, 30, 3), 4))
    y = torch.randn(60, 6).bfloat16()
    assert torch.equal(neighbor_max(y, neighbors).float(), neighbor_max(y.float(), neighbors))


# opcheck itself reads the gradient of a tensor that is no leaf.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_operators_are_registered_soundly():
    neighbors = Neighbors.from_table(knn(torch.randn(2, 9, 3), 4))
    y = torch.randn(18, 5, requires_grad=True)
    torch.library.opcheck(reduce._max, (y, neighbors.rowptr, neighbors.col, 2))
    best = torch.randint(9, (18, 5), dtype=torch.int32)
    torch.library.opcheck(reduce._max_grad, (y, best, 18, 2))
    transposed = neighbors.transposed
    torch.library.opcheck(
        reduce._sum, (y, neighbors.rowptr, neighbors.col, transposed.rowptr, transposed.col)
    )
