"""What is wrong with edges is told by name, value and remedy, whatever the layer; right ones pass."""

import pytest
import torch
import torch_geometric.nn as pyg
from torch_geometric.data import Data

from mgic_geo import EdgeConv, MGICDynamicEdgeConv, MGICGraphConv
from mgic_geo.benchmark.pyg_layers import example_graph
from mgic_geo.graph.edge_inputs import check_edge_range, check_edges, index_of, of_type

X, EDGES = torch.randn(10, 16), example_graph(10, 3)
LAYERS = [(pyg.GCNConv, {}), (pyg.SAGEConv, {}), (pyg.GATv2Conv, {"edge_dim": 3})]


def layer_of(conv, **options):
    return MGICGraphConv(16, 16, conv=conv, group_size=8, coarse_size=8, **options)


@pytest.mark.parametrize(
    ("conv", "options", "name", "shape"),
    [
        (pyg.GCNConv, {}, "edge_weight", (31,)),
        (pyg.GraphConv, {}, "edge_weight", (29,)),
        (pyg.GraphConv, {}, "edge_weight", ()),
        (pyg.GATConv, {"edge_dim": 3}, "edge_attr", (31, 3)),
        (pyg.NNConv, {"edge_dim": 3}, "edge_attr", (29, 3)),
        (pyg.FiLMConv, {"num_relations": 2}, "edge_type", (31,)),
    ],
)
def test_another_number_of_edges(conv, options, name, shape):
    layer, values = layer_of(conv, **options), torch.zeros(shape)
    for given in ((values,), {name: values}):
        with pytest.raises(ValueError, match=rf"{name} needs a row for each of the 30 edges .*; select and"):
            layer(X, EDGES, *given) if isinstance(given, tuple) else layer(X, EDGES, **given)


@pytest.mark.parametrize("conv", ["edge", "SAGEConv"])
def test_no_features(conv):
    layer = MGICGraphConv(16, 16, conv=conv)
    data = Data(x=X, edge_index=EDGES)
    with pytest.raises(TypeError, match=r"got Data; pass data\.x and data\.edge_index"):
        layer(data, EDGES)
    for x in (X[0], X.view(1, 1, 10, 16)):
        with pytest.raises(ValueError, match=r"shape \(nodes, channels\), or dense clouds"):
            layer(x, EDGES)
    with pytest.raises(ValueError, match=r"floating-point channels, got shape \(10, 16\) of torch\.int64"):
        layer(X.long(), EDGES)
    with pytest.raises(ValueError, match=r"shape \(nodes, channels\), got \(1, 10, 16\)"):
        layer((X, X[None]), EDGES)
    with pytest.raises(ValueError, match=r"a pair is \(sources, targets\), got 3 parts"):
        layer((X, X, X), EDGES)
    with pytest.raises(TypeError, match="MGICGraphConv takes a pair and its own graph"):
        MGICDynamicEdgeConv(16, 16, k=3)((X, X))


def test_a_bad_first_input_settles_nothing():
    layer = MGICGraphConv(-1, 16)
    with pytest.raises(ValueError, match=r"got \(16,\)"):
        layer(X[0], EDGES)
    with pytest.raises(ValueError, match=r"sources of 7 channels and targets of 16; .*=\(-1, -1\)"):
        layer((X[:, :7], X), EDGES)
    assert layer.in_channels == -1
    assert layer(X, EDGES).shape == (10, 16)


@pytest.mark.parametrize(("conv", "options"), LAYERS)
def test_no_edge_index(conv, options):
    layer = layer_of(conv, **options)
    with pytest.raises(ValueError, match=r"shape \(2, E\), .* got \(30, 2\); transpose a list of pairs"):
        layer(X, EDGES.t())
    with pytest.raises(ValueError, match=r"holds integers, got torch.float32; convert it with .long\(\)"):
        layer(X, EDGES.float())


@pytest.mark.parametrize(("conv", "options"), LAYERS)
@pytest.mark.parametrize(("row", "name"), [(0, "source"), (1, "target")])
def test_indices_outside_the_nodes(conv, options, row, name):
    outside = EDGES.clone()
    outside[row, 3] = 10
    with pytest.raises(ValueError, match=rf"{name} indices must lie in \[0, 10\), got 0 to 10; does x hold"):
        layer_of(conv, **options)(X, outside)


def test_sides_of_pairs_and_of_the_other_flow():
    edges = torch.tensor([[0, 7], [4, 0]])
    check_edge_range(edges, 8, 5)
    check_edge_range(edges, 5, 8, "target_to_source")
    with pytest.raises(ValueError, match=r"target indices must lie in \[0, 4\)"):
        check_edge_range(edges, 8, 4)
    with pytest.raises(ValueError, match=r"target indices must lie in \[0, 7\)"):
        check_edge_range(edges, 5, 7, "target_to_source")
    with pytest.raises(ValueError, match=r"source indices must lie in \[0, 8\), got -1 to 6"):
        check_edge_range(edges - torch.tensor([[1], [0]]), 8, 5)


def test_other_failures_are_told_as_they_are():
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        layer_of(pyg.GATv2Conv, edge_dim=3)(X, EDGES, torch.randn(30, 4))


def test_what_is_right_or_no_edge_index_passes():
    check_edges({"edge_index": EDGES, "edge_weight": torch.rand(30), "edge_attr": torch.rand(30, 2)})
    check_edges({"edge_index": EDGES.int(), "edge_weight": None})
    check_edges({"edge_index": EDGES[:, :0], "edge_weight": torch.rand(0)})
    check_edges({"edge_index": torch.eye(3).to_sparse(), "edge_weight": torch.rand(5)})
    check_edges({"hyperedge_index": EDGES, "hyperedge_weight": torch.rand(3)})
    check_edge_range(torch.eye(3).to_sparse(), 1, 1)


def test_narrow_indices_and_wide_weights_are_taken():
    edges, weight, attr = EDGES[:, torch.randperm(30)], torch.rand(30).double(), torch.rand(30, 3).double()
    given = (pyg.SAGEConv, {}, []), (pyg.GCNConv, {}, [weight]), (pyg.GATv2Conv, {"edge_dim": 3}, [attr])
    for conv, options, values in given:
        for layer in (layer_of(conv, **options).eval(), MGICGraphConv(16, 16, conv=conv, **options).eval()):
            out = layer(X, edges.int(), *values)
            assert out.dtype == torch.float32
            out.sum().backward()
            torch.testing.assert_close(out, layer(X, edges, *(value.float() for value in values)))
            with torch.autocast("cpu", torch.bfloat16):
                torch.testing.assert_close(layer(X, edges.int(), *values), out, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
def test_counts_and_masks_are_weights(dtype):
    weight = torch.randint(2, (30,), dtype=dtype)
    for conv in (pyg.GCNConv, pyg.GraphConv, pyg.LEConv):
        layer = layer_of(conv).double().eval()
        out = layer(X.double(), EDGES, weight)
        torch.testing.assert_close(out, layer(X.double(), EDGES, edge_weight=weight.double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer_of(pyg.GCNConv)(X, EDGES, weight).isfinite().all()
    assert of_type("edge_type", weight, X) is weight
    assert of_type("edge_attr", weight, X) is weight


def test_an_index_made_in_inference_mode_serves_gradients():
    with torch.inference_mode():
        index = torch.randint(9, (2, 30))
        assert index_of(index) is index
    assert not index_of(index).is_inference()
    plain = torch.randint(9, (2, 30))
    assert index_of(plain) is plain
    for layer in (MGICGraphConv(16, 16, group_size=4, coarse_size=4), EdgeConv(16, 16)):
        layer(torch.randn(9, 16), index).sum().backward()
    table = index.view(1, 6, 10).clamp(max=5)
    EdgeConv(16, 16)(torch.randn(1, 6, 16), table).sum().backward()
