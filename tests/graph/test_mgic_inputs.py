"""All that the layer inside takes reaches it on every level; pairs, sparse graphs and lazy widths."""

import copy

import oracles
import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch_geometric import EdgeIndex
from torch_geometric.utils import to_torch_coo_tensor, to_torch_csc_tensor, to_torch_csr_tensor

from mgic_geo import EdgeConv, MGICDynamicEdgeConv, MGICGraphConv, knn, knn_graph

SIZES = {"group_size": 8, "coarse_size": 8}


@pytest.fixture
def graph():
    torch.manual_seed(0)
    x = torch.randn(30, 16)
    return x, knn_graph(x, 5)


def layer_of(conv, width_in=16, width_out=32, **kwargs):
    torch.manual_seed(1)
    return MGICGraphConv(width_in, width_out, conv=conv, **{**SIZES, **kwargs}).eval()


@pytest.mark.parametrize(
    ("conv", "options", "name"),
    [
        (pyg.GCNConv, {}, "edge_weight"),
        (pyg.GATConv, {"edge_dim": 3, "heads": 2}, "edge_attr"),
        (pyg.NNConv, {"edge_dim": 3}, "edge_attr"),
        (pyg.FiLMConv, {"num_relations": 2}, "edge_type"),
    ],
)
def test_what_belongs_to_edges_arrives(conv, options, name, graph):
    x, edge_index = graph
    edges = edge_index.size(1)
    values = {
        "edge_weight": torch.rand(edges),
        "edge_attr": torch.randn(edges, 3),
        "edge_type": torch.randint(2, (edges,)),
    }
    layer = layer_of(conv, **options)
    order = torch.randperm(edges)
    out = layer(x, edge_index, **{name: values[name]})
    assert oracles.relative_difference(layer(x, edge_index[:, order], values[name][order]), out) < 1e-5
    assert not torch.equal(layer(x, edge_index, values[name].flip(0)), out)


@pytest.mark.parametrize("conv", [pyg.PointTransformerConv, pyg.PointNetConv])
def test_positions_arrive(conv, graph):
    x, edge_index = graph
    pos, layer = torch.randn(30, 3), layer_of(conv)
    out = layer(x, pos, edge_index)
    torch.testing.assert_close(layer(x, edge_index=edge_index, pos=pos), out)
    torch.testing.assert_close(layer(x, pos + 7, edge_index), out, rtol=1e-4, atol=1e-4)
    assert not torch.equal(layer(x, 2 * pos, edge_index), out)
    clouds, places = x.view(2, 15, 16), pos.view(2, 15, 3)
    dense = layer(clouds, places, knn(clouds, 4))
    flat = layer(x, pos, knn_graph(x, 4, torch.arange(2).repeat_interleave(15), loop=True))
    torch.testing.assert_close(dense.view(30, 32), flat)


def test_initial_features_go_down_the_levels(graph):
    x, edge_index = graph
    layer = layer_of(pyg.GCN2Conv, alpha=0.4, shared_weights=False)
    first = torch.randn(30, 16, requires_grad=True)
    out = layer(x, first, edge_index)
    (gradient,) = torch.autograd.grad(out[:, 0].sum(), first)
    assert (gradient.abs().amax(0) > 0).all()
    torch.testing.assert_close(layer(x, edge_index=edge_index, x_0=first), out)


@pytest.mark.filterwarnings("ignore:Sparse", "ignore:Converting sparse tensor to CSR")
@pytest.mark.parametrize("to_sparse", [to_torch_coo_tensor, to_torch_csr_tensor, to_torch_csc_tensor])
@pytest.mark.parametrize("conv", [EdgeConv, pyg.SAGEConv, pyg.GraphConv])
def test_sparse_adjacency(conv, to_sparse, graph):
    x, edge_index = graph
    edge_index = edge_index.unique(dim=1)  # a matrix has one entry an edge
    layer = layer_of(conv)
    adjacency = to_sparse(edge_index.flip(0), size=(30, 30))
    assert oracles.relative_difference(layer(x, adjacency), layer(x, edge_index)) < 1e-5


@pytest.mark.parametrize("conv", [EdgeConv, pyg.SAGEConv])
def test_sparse_tensor(conv, graph):
    sparse = pytest.importorskip("torch_sparse")
    x, edge_index = graph
    layer = layer_of(conv)
    adjacency = sparse.SparseTensor(row=edge_index[1], col=edge_index[0], sparse_sizes=(30, 30))
    assert oracles.relative_difference(layer(x, adjacency), layer(x, edge_index)) < 1e-5


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of PyG's matrix, once a process
@pytest.mark.parametrize("conv", [EdgeConv, pyg.GCNConv, pyg.GraphConv, pyg.GATv2Conv])
def test_edge_index_class(conv, graph):
    x, edge_index = graph
    layer = layer_of(conv)
    index = EdgeIndex(edge_index, sparse_size=(30, 30)).sort_by("col").values
    assert oracles.relative_difference(layer(x, index), layer(x, edge_index)) < 1e-5


@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_matrix_of_another_shape_is_refused(graph):
    x, edge_index = graph
    matrix = to_torch_csr_tensor(edge_index, size=(30, 30))
    with pytest.raises(ValueError, match=r"here \(20, 20\) from sources to targets, got \(30, 30\)"):
        layer_of(EdgeConv)(x[:20], matrix)
    with pytest.raises(ValueError, match="flow='target_to_source'"):
        layer_of(EdgeConv, flow="target_to_source")(x, matrix)


@pytest.mark.parametrize("conv", [EdgeConv, pyg.SAGEConv, pyg.GATv2Conv, pyg.GATConv, pyg.TAGConv])
def test_pairs(conv):
    torch.manual_seed(0)
    source, target = torch.randn(20, 16, requires_grad=True), torch.randn(7, 16, requires_grad=True)
    edge_index = torch.stack([torch.arange(20), torch.arange(20) % 7])
    options = {"add_self_loops": False} if conv is pyg.GATConv else {}
    layer = layer_of(conv, act="tanh", **options)
    if conv is pyg.TAGConv:
        with pytest.raises((AttributeError, ValueError)):
            layer((source, target), edge_index)
        return
    out = layer((source, target), edge_index)
    assert out.shape == (7, 32)
    for gradient in torch.autograd.grad(out[:, 0].sum(), [source, target]):
        assert (gradient.abs().amax(0) > 0).all()


def test_the_cycle_of_a_pair_is_the_designs_formula():
    torch.manual_seed(0)
    source, target = torch.randn(20, 16), torch.randn(7, 16)
    edge_index = torch.stack([torch.arange(20), torch.arange(20) % 7])
    layer = layer_of(pyg.SAGEConv, width_out=16, coarse_size=8, norm=None)
    (fine, coarse), (restrict,), (prolong,) = (
        layer.cycle.blocks, layer.cycle.restrictions, layer.cycle.prolongations
    )  # fmt: skip
    low = restrict(target)
    deep = low + coarse.conv((restrict(source), low), edge_index).relu()
    high = target + prolong(deep - low)
    expected = high + fine.conv((source, high), edge_index).relu()
    torch.testing.assert_close(layer((source, target), edge_index), expected)


def test_pairs_of_two_widths_and_size():
    torch.manual_seed(0)
    source, target = torch.randn(20, 12), torch.randn(7, 16)
    edge_index = torch.stack([torch.arange(20), torch.arange(20) % 7])
    layer = layer_of(pyg.SAGEConv, (12, 16))
    out = layer((source, target), edge_index)
    torch.testing.assert_close(layer((source, target), edge_index, size=(20, 7)), out)
    with pytest.raises(ValueError, match=r"in_channels=12 floating-point channels, got shape \(20, 16\)"):
        layer((torch.randn(20, 16), target), edge_index)
    both = MGICGraphConv((-1, -1), 32, **SIZES).eval()
    with torch.no_grad():
        both((source, target), edge_index)
    assert both.in_channels == (12, 16)
    both.load_state_dict(layer.state_dict())
    torch.testing.assert_close(both((source, target), edge_index), out)
    same = layer_of(pyg.SAGEConv, (16, 16))
    torch.testing.assert_close(same(target, edge_index % 7), same((target, target), edge_index % 7))


@pytest.mark.parametrize("conv", [pyg.GATConv, pyg.GATv2Conv, pyg.TransformerConv])
def test_attention_weights_are_refused(conv, graph):
    x, edge_index = graph
    layer = layer_of(conv)
    with pytest.raises(ValueError, match="every level and group has its own; leave return_attention_weights"):
        layer(x, edge_index, return_attention_weights=True)
    assert layer(x, edge_index, return_attention_weights=False).shape == (30, 32)
    if conv is not pyg.GATConv:
        with pytest.raises(ValueError, match="must be features, got tuple"):
            layer(x, edge_index, None, True)


class TestLazy:
    def test_takes_its_width_from_the_first_input(self, graph):
        x, edge_index = graph
        layer = MGICGraphConv(-1, 32, **SIZES)
        assert repr(layer).startswith("MGICGraphConv(-1, 32, conv=SAGEConv")
        layer.reset_parameters()
        optimizer = torch.optim.SGD(layer.parameters(), 1.0)
        layer(x, edge_index).sum().backward()
        assert repr(layer).startswith("MGICGraphConv(16, 32, conv=SAGEConv")
        before = layer.shortcut.weight.detach().clone()
        optimizer.step()
        assert not torch.equal(layer.shortcut.weight, before)
        layer.reset_parameters()
        assert repr(layer.shortcut) == repr(MGICGraphConv(16, 32, **SIZES).shortcut)
        with pytest.raises(ValueError, match="in_channels=16 floating-point channels"):
            layer(torch.randn(30, 8), edge_index)

    def test_nothing_to_map(self, graph):
        x, edge_index = graph
        layer = MGICGraphConv(-1, 16, **SIZES)
        optimizer = torch.optim.SGD(layer.parameters(), 1.0)
        layer(x, edge_index).sum().backward()
        optimizer.step()
        assert isinstance(layer.shortcut, nn.Identity)

    @pytest.mark.parametrize("width", [16, 32])
    def test_loads_a_state_before_the_first_input(self, width, graph):
        x, edge_index = graph
        trained = layer_of(pyg.SAGEConv, width)
        x = torch.randn(30, width)
        lazy = MGICGraphConv(-1, 32, **SIZES).eval()
        lazy.load_state_dict(trained.state_dict())
        torch.testing.assert_close(copy.deepcopy(lazy)(x, edge_index), trained(x, edge_index))
        with pytest.raises(ValueError, match=r"first input has 20 channels.* the in_channels of"):
            lazy(torch.randn(30, 20), edge_index)

    def test_a_state_before_the_first_input_says_so(self, graph):
        x, edge_index = graph
        first, second = MGICGraphConv(-1, 32, **SIZES).eval(), MGICGraphConv(-1, 32, **SIZES).eval()
        state = first.state_dict()
        assert isinstance(state["shortcut.weight"], UninitializedParameter)
        second.load_state_dict(state)
        assert second(x, edge_index).shape == (30, 32)

    def test_on_dense_clouds(self):
        torch.manual_seed(0)
        layer = MGICDynamicEdgeConv(-1, 16, k=3, **SIZES).double()
        assert layer(torch.randn(2, 10, 3).double()).dtype == torch.float64
        assert layer.in_channels == 3
        assert layer.shortcut.weight.dtype == torch.float64

    def test_other_widths_are_refused(self):
        with pytest.raises(ValueError, match="in_channels must be at least 1, got 0"):
            MGICGraphConv(0, 16)
