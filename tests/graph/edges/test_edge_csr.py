"""Edges by their targets, and what is remembered of a graph."""

import gc
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import compiled
import pytest
import torch

from mgic_geo.benchmark.pyg_layers import example_graph
from mgic_geo.graph.edges import edge_csr as module
from mgic_geo.graph.edges.edge_csr import EdgeCSR, clear_graph_cache, edge_csr
from mgic_geo.native import plain_torch

EDGES = torch.tensor([[0, 2, 1, 0, 2, 2], [3, 0, 3, 0, 3, 1]])


def test_edges_by_target():
    graph = edge_csr(EDGES, 3, 5)
    assert graph.edges.tolist() == [1, 3, 5, 0, 2, 4]
    assert graph.ptr.tolist() == [0, 2, 3, 3, 6, 6]
    assert graph.degree.tolist() == [2, 1, 0, 3, 0]
    assert graph.transposed.degree.tolist() == [2, 1, 3]
    assert graph.transposed.transposed is graph


@compiled.needed
@pytest.mark.parametrize(("edges", "nodes"), [(0, 3), (1, 1), (200, 7), (5, 50)])
def test_sorted_by_compiled_loops_as_by_torch(edges, nodes):
    generator = torch.Generator().manual_seed(edges)
    source, target = (torch.randint(nodes, (edges,), generator=generator) for _ in range(2))
    with compiled.counted() as calls:
        ours = EdgeCSR(source, target, nodes, nodes)
    assert calls
    with plain_torch():
        plain = EdgeCSR(source, target, nodes, nodes)
    for name in ("edges", "source_by_target", "ptr", "degree"):
        assert torch.equal(getattr(ours, name), getattr(plain, name)), name


def test_an_equal_graph_is_found_and_another_is_not():
    edge_index = example_graph(20, 3)
    graph = edge_csr(edge_index, 20, 20)
    assert edge_csr(edge_index.clone(), 20, 20) is graph
    assert edge_csr(edge_index, 20, 21) is not graph
    edge_index[0, 5] = (edge_index[0, 5] + 1) % 20  # in place
    assert edge_csr(edge_index, 20, 20) is not graph


@pytest.fixture
def budget(monkeypatch):
    """A budget of two graphs of 10 nodes and 20 edges, and an empty cache ahead and behind."""
    one = EdgeCSR(*example_graph(10, 2), 10, 10).nbytes
    monkeypatch.setattr(module, "_BYTES", 2 * one)
    clear_graph_cache()
    yield
    clear_graph_cache()


def small(seed):
    return edge_csr(example_graph(10, 2, seed), 10, 10)


def large(seed):
    return edge_csr(example_graph(40, 2, seed), 40, 40)


def test_few_graphs_are_remembered():
    for seed in range(20):
        small(seed)
    assert len(module._recent) == module._KEPT
    last = weakref.ref(module._recent[0])
    clear_graph_cache()
    assert last() is None


def test_the_newest_graphs_share_a_budget(budget):
    first, second = small(0), small(1)
    assert (small(0), small(1)) == (first, second)
    third = small(2)
    assert (small(2), small(1)) == (third, second)
    assert small(0) is not first
    newest = small(3)
    newest.tables(4)  # what is worked out later counts, too
    assert newest.nbytes > newest.source.nbytes * 5
    small(4)
    assert small(3) is not newest


def test_one_large_graph_is_remembered_beside_the_others(budget):
    first, second, big = small(0), small(1), large(0)
    assert (small(0), small(1), large(0)) == (first, second, big)
    gone = weakref.ref(big)
    del big
    assert large(1) is large(1)
    assert gone() is None
    assert (small(0), small(1)) == (first, second)


def test_memory_counts_every_tensor_once():
    edge_index = example_graph(10, 2)
    graph = EdgeCSR(*edge_index, 10, 10)
    assert graph.nbytes == 8 * (4 * 20 + 10 + 11)
    transposed = graph.transposed
    assert transposed.nbytes == 8 * (2 * 20 + 10 + 11)
    assert graph.nbytes == 8 * (6 * 20 + 2 * 10 + 2 * 11)
    before = graph.nbytes
    graph.rows(torch.empty(0))
    assert graph.nbytes == before + 4 * 20


def test_pairs_of_heads_are_kept_within_the_budget(budget):
    graph = small(0)
    assert graph.expand_heads(2)[0] is graph.expand_heads(2)[0]
    assert graph.expand_heads(9)[0] is not graph.expand_heads(9)[0]


def test_threads_share_graphs_and_no_filter_of_warnings(monkeypatch):
    before = list(warnings.filters)
    monkeypatch.setattr(warnings, "catch_warnings", None)

    def run(seed):
        graph = small(seed % 12)
        total = torch.sparse.mm(graph.rows(torch.empty(0)), torch.ones(20, 1), "amax")
        return bool((total.squeeze(1) == (graph.degree > 0)).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(200)))
    assert warnings.filters == before


def test_pairs_of_nodes_and_heads():
    graph = edge_csr(EDGES, 3, 5)
    source, place, ptr = graph.expand_heads(2)
    for target in range(5):
        for head in range(2):
            part = slice(*ptr[2 * target + head : 2 * target + head + 2].tolist())
            edges = [e for e in range(6) if EDGES[1, e] == target]
            assert place[part].tolist() == [2 * e + head for e in edges]
            assert source[part].tolist() == [2 * int(EDGES[0, e]) + head for e in edges]


@pytest.mark.parametrize("most", [1, 2, 100])
def test_tables_hold_every_edge_once(most):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(9, (60,), generator=generator).pow(2) % 11
    graph = edge_csr(torch.stack([torch.zeros_like(target), target]), 1, 11)
    tables = graph.tables(most)
    rows = [row[row < 60].tolist() for table in tables for row in table]
    assert len(rows) == 11
    assert max(len(table) for table in tables) <= most
    for node, place in enumerate(graph.place_in_tables(most).tolist()):
        assert rows[place] == (target == node).nonzero().flatten().tolist()


def test_a_graph_without_targets_has_one_table_without_rows():
    graph = edge_csr(EDGES[:, :0], 3, 0)
    assert [table.shape for table in graph.tables(4)] == [(0, 1)]
    assert graph.place_in_tables(4).shape == (0,)


def test_an_index_outside_the_nodes_is_refused():
    with pytest.raises(ValueError, match=r"target indices must lie in \[0, 3\), got 0 to 3; does x hold"):
        edge_csr(EDGES, 3, 3)
    with pytest.raises(ValueError, match=r"source indices must lie in \[0, 3\), got -1 to 1"):
        edge_csr(EDGES - torch.tensor([[1], [0]]), 3, 5)


def test_a_graph_that_is_let_go_is_freed_without_a_collector_of_cycles():
    graph = EdgeCSR(torch.tensor([0, 1]), torch.tensor([1, 1]), 2, 2)
    transposed, alive = graph.transposed, weakref.ref(graph)
    assert transposed.transposed is graph
    gc.disable()
    try:
        del graph
        assert alive() is None
    finally:
        gc.enable()
    assert transposed.transposed.target.tolist() == [1, 1]


def test_what_inference_worked_out_serves_training():
    edges = torch.tensor([[0, 1, 2], [2, 0, 0]])
    with torch.inference_mode():
        graph = edge_csr(edges, 3, 3)
        graph.tables(4)
    found = [graph.edges, graph.ptr, graph.transposed.edges, *graph.tables(4), *graph.expand_heads(2)]
    assert not any(tensor.is_inference() for tensor in found)
