import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgic_geo.graph.neighbors import Neighbors, as_neighbors, compressed, edges_of, flatten_clouds


def random_graph(nodes, edges, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(nodes, (2, edges), generator=generator)


def edge_set(edge_index):
    return sorted(map(tuple, edge_index.T.tolist()))


@given(st.integers(1, 12), st.integers(0, 40))
def test_an_edge_index_comes_back_sorted_by_target(nodes, edges):
    edge_index = random_graph(nodes, edges)
    neighbors = Neighbors.from_edge_index(edge_index, nodes)
    assert edge_set(neighbors.edge_index) == edge_set(edge_index)
    assert bool((neighbors.row.diff() >= 0).all())
    assert torch.equal(neighbors.in_degree, torch.bincount(edge_index[1], minlength=nodes))
    assert torch.equal(neighbors.out_degree, torch.bincount(edge_index[0], minlength=nodes))
    assert neighbors.has_isolated == bool((neighbors.in_degree == 0).any())
    assert neighbors.num_targets == neighbors.num_sources == nodes


@given(st.integers(1, 12), st.integers(0, 40))
def test_turning_round_swaps_the_rows(nodes, edges):
    neighbors = Neighbors.from_edge_index(random_graph(nodes, edges), nodes)
    assert edge_set(neighbors.transposed.edge_index) == edge_set(neighbors.edge_index.flip(0))
    assert edge_set(neighbors.transposed.transposed.edge_index) == edge_set(neighbors.edge_index)


@given(st.integers(1, 12), st.integers(0, 40))
def test_edges_turned_round_know_their_places(nodes, edges):
    neighbors = Neighbors.from_edge_index(random_graph(nodes, edges), nodes)
    source, target = neighbors.transposed.row, neighbors.transposed.col
    assert torch.equal(neighbors.col[neighbors.rowptr[target] + neighbors.ranks], source)
    places = torch.stack([target, neighbors.ranks])
    assert places.unique(dim=1).size(1) == edges


def test_a_graph_of_other_nodes_is_refused():
    graph = Neighbors.from_edge_index(random_graph(9, 30), 9)
    assert as_neighbors(graph, 9) is graph
    with pytest.raises(ValueError, match="9 source and 9 target nodes, but x has 9 and 8"):
        as_neighbors(graph, 8, 9)


def test_the_other_flow():
    edge_index = random_graph(9, 30)
    a = Neighbors.from_edge_index(edge_index, 9, flow="target_to_source")
    b = Neighbors.from_edge_index(edge_index.flip(0), 9)
    assert torch.equal(a.col, b.col)
    assert torch.equal(a.rowptr, b.rowptr)


def test_a_matrix_out_of_order_stays_as_it_is():
    edge_index = random_graph(9, 30)
    matrix = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(30), (9, 9), check_invariants=False)
    assert torch.equal(edges_of(matrix), edge_index)
    assert torch.equal(compressed(matrix).to_dense(), matrix.to_dense())
    assert not matrix.is_coalesced()
    assert compressed(edge_index) is edge_index


def test_a_table_of_clouds_is_one_graph():
    table = torch.tensor([[[0, 1], [1, 0], [2, 1]], [[0, 2], [1, 2], [2, 0]]])
    neighbors = Neighbors.from_table(table)
    assert neighbors.col.tolist() == [0, 1, 1, 0, 2, 1, 3, 5, 4, 5, 5, 3]
    assert neighbors.row.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert (neighbors.clouds, neighbors.num_sources, neighbors.has_isolated) == (2, 6, False)


def test_bipartite_sizes():
    neighbors = Neighbors.from_edge_index(torch.tensor([[6, 0], [1, 1]]), num_targets=2, num_sources=7)
    assert (neighbors.num_targets, neighbors.num_sources) == (2, 7)
    assert neighbors.in_degree.tolist() == [0, 2]


def test_flatten_clouds():
    x, table = torch.randn(2, 3, 4), torch.zeros(2, 3, 1, dtype=torch.long)
    flat, neighbors = flatten_clouds(x, table)
    assert flat.shape == (6, 4)
    assert neighbors.col.tolist() == [0, 0, 0, 3, 3, 3]
    with pytest.raises(ValueError, match="an edge index goes with nodes"):
        flatten_clouds(x, torch.zeros(2, 5, dtype=torch.long))


def test_errors_name_value_and_expectation():
    with pytest.raises(ValueError, match=r"shape \(2, E\), got \(3, 5\)"):
        Neighbors.from_edge_index(torch.zeros(3, 5, dtype=torch.long), 4)
    with pytest.raises(ValueError, match=r"source indices must lie in \[0, 4\), got 0 to 9"):
        Neighbors.from_edge_index(torch.tensor([[9, 0], [0, 1]]), 4)
    with pytest.raises(ValueError, match=r"target indices must lie in \[0, 4\), got -1 to 1"):
        Neighbors.from_edge_index(torch.tensor([[3, 0], [-1, 1]]), 4)
    with pytest.raises(ValueError, match=r"\(B, N, k\) or \(N, k\), got shape \(4,\)"):
        Neighbors.from_table(torch.zeros(4, dtype=torch.long))


def test_bad_indices_are_named():
    x, table = torch.randn(2, 4, 3), torch.zeros(2, 4, 2, dtype=torch.long)
    for bad in (4, -1):
        table[1, 2, 0] = bad
        for make in (Neighbors.from_table, lambda table: flatten_clouds(x, table)):
            with pytest.raises(ValueError, match=rf"table must lie in \[0, 4\), got {min(bad, 0)} to"):
                make(table)
    with pytest.raises(ValueError, match=r"holds integers, got torch\.float32; convert it with \.long\(\)"):
        Neighbors.from_table(torch.zeros(2, 4, 2))
    with pytest.raises(ValueError, match=r"holds integers, got torch\.bool"):
        Neighbors.from_edge_index(torch.zeros(2, 4, dtype=torch.bool), 4)
    with pytest.raises(ValueError, match=r"dense clouds: x\[None\], table\[None\]"):
        Neighbors.from_edge_index(torch.zeros(9, 4, dtype=torch.long), 9)


def test_narrow_integers_and_no_clouds():
    neighbors = Neighbors.from_edge_index(torch.tensor([[1, 0], [0, 1]], dtype=torch.int32), 2)
    assert neighbors.col.dtype == torch.long
    assert Neighbors.from_table(torch.zeros(0, 4, 2, dtype=torch.long)).num_targets == 0


def test_what_was_computed_is_kept_and_travels():
    neighbors = Neighbors.from_edge_index(random_graph(5, 20), 5)
    assert neighbors.row is neighbors.row
    assert neighbors.transposed is neighbors.transposed
    assert torch.equal(pickle.loads(pickle.dumps(neighbors)).row, neighbors.row)


def test_what_was_computed_in_inference_mode_serves_a_gradient():
    neighbors = Neighbors.from_edge_index(random_graph(5, 20), 5)
    with torch.inference_mode():
        found = [neighbors.row, neighbors.col32, neighbors.in_degree, neighbors.out_degree, neighbors.ranks]
    assert not any(values.is_inference() for values in found)


def test_without_values_nothing_is_looked_at():
    neighbors = Neighbors.from_edge_index(random_graph(5, 20).to("meta"), 5)
    assert neighbors.row.shape == (20,)
    assert neighbors.has_isolated
    assert Neighbors.from_table(torch.zeros(2, 5, 3, dtype=torch.long, device="meta")).num_targets == 10


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 4), st.booleans())
def test_an_edge_index_tells_its_degree_and_its_clouds(clouds, size, degree, shuffle):
    generator = torch.Generator().manual_seed(clouds + 10 * size + 100 * degree)
    table = torch.randint(size, (clouds, size, degree), generator=generator)
    graph = Neighbors.from_table(table)
    edges = graph.edge_index
    if shuffle:
        edges = edges[:, torch.randperm(edges.size(1), generator=generator)]
    found = Neighbors.from_edge_index(edges, clouds * size)
    assert found.degree == degree
    assert found.clouds % clouds == 0  # or more, where a cloud itself falls into parts
    part = clouds * size // found.clouds
    assert torch.equal(found.col // part, found.row // part)  # no edge leaves its part
    assert torch.equal(found.rowptr, graph.rowptr)
    assert torch.equal(found.col.view(-1, degree).sort(1).values, graph.col.view(-1, degree).sort(1).values)


def test_unequal_degrees_and_clouds_are_told_apart():
    assert Neighbors.from_edge_index(torch.tensor([[0, 1, 0], [0, 0, 1]]), 2).degree is None
    table = torch.cat(
        [torch.tensor([[1], [0]]), 2 + torch.tensor([[1], [2], [0]])]
    )  # clouds of 2 and 3 nodes
    edges = torch.stack([table.flatten(), torch.arange(5)])
    assert Neighbors.from_edge_index(edges, 5).clouds == 1
    assert Neighbors.from_edge_index(edges, 5).degree == 1
