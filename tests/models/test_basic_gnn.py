"""The four models take PyG's arguments and do what PyG's do with them."""

import io

import oracles
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader, RandomNodeLoader
from torch_geometric.nn import GATConv, GATv2Conv, GCNConv, GINConv, SAGEConv

from mgic_geo import MGICGAT, MGICGCN, MGICGIN, MGICGraphConv, MGICGraphSAGE, Restriction
from mgic_geo.models.basic_gnn import InputLayer

MODELS = [MGICGCN, MGICGraphSAGE, MGICGAT, MGICGIN]
SIZES = {"group_size": 4, "coarse_size": 8}


@pytest.fixture
def graph():
    torch.manual_seed(0)
    return torch.randn(12, 8), torch.randint(12, (2, 40))


@pytest.mark.parametrize("jk", [None, "last", "cat", "max", "lstm"])
@pytest.mark.parametrize("out", [None, 5])
@pytest.mark.parametrize("model", MODELS)
def test_shapes_and_repr_are_pygs(model, out, jk, graph):
    net = model(8, 16, num_layers=3, out_channels=out, jk=jk, dropout=0.5, **SIZES)
    width = out or 16
    assert repr(net) == f"{model.__name__}(8, {width}, num_layers=3)"
    assert net(*graph).shape == (12, width)
    net(*graph).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("act", [None, "leaky_relu", torch.relu_, F.elu, nn.ReLU()])
@pytest.mark.parametrize("norm", [None, "batch_norm", "layer_norm", "graph_norm", nn.BatchNorm1d(16)])
def test_activations_and_norms_of_pyg(act, norm, graph):
    net = MGICGCN(8, 16, 3, 5, act=act, norm=norm, act_first=norm == "batch_norm", **SIZES)
    batch = torch.arange(12) // 6
    apart = torch.stack([graph[1][0] % 6, graph[1][1] % 6])
    both = torch.cat([apart, apart + 6], dim=1)
    out = net.eval()(graph[0], both, batch=batch)
    torch.testing.assert_close(net(graph[0][:6], apart, batch=batch[:6]), out[:6])
    kind = nn.Identity if act is None else nn.LeakyReLU if act == "leaky_relu" else type(act)
    for block in (net.convs[0], *net.convs[1].cycle.blocks):
        assert type(block.act) is kind
        assert block.act_first == (norm == "batch_norm")


def test_act_first_swaps_the_blocks_norm_and_activation(graph):
    x, edge_index = graph
    first = MGICGraphConv(8, 8, conv=SAGEConv, coarse_size=8, act_first=True, norm="layer_norm", act="tanh")
    block = first.cycle.blocks[0]
    torch.testing.assert_close(first(x, edge_index), x + block.norm(block.conv(x, edge_index).tanh()))
    dense = MGICGCN(8, 16, 3, 5, act="tanh", act_first=True, block_norm="layer_norm", **SIZES).convs[0]
    torch.testing.assert_close(dense(x, edge_index), dense.norm(dense.conv(x, edge_index).tanh()))


@pytest.mark.parametrize("model", MODELS)
def test_the_first_layer_and_the_logits_are_pygs_own(model, graph):
    x, edge_index = graph
    net = model(8, 16, 4, 5, **SIZES).eval()
    kind = {MGICGCN: GCNConv, MGICGraphSAGE: SAGEConv, MGICGAT: GATConv, MGICGIN: GINConv}[model]
    assert [type(conv) for conv in net.convs] == [InputLayer, MGICGraphConv, MGICGraphConv, kind]
    first = net.convs[0]
    assert type(first.conv) is kind
    torch.testing.assert_close(first(x, edge_index), first.norm(first.conv(x, edge_index)).relu())
    hidden = net.convs[2](net.convs[1](first(x, edge_index), edge_index), edge_index)
    torch.testing.assert_close(net(x, edge_index), net.convs[3](hidden, edge_index))
    jumping = model(8, 16, 3, 5, jk="cat", **SIZES)
    assert [type(conv) for conv in jumping.convs] == [InputLayer, MGICGraphConv, MGICGraphConv]


@pytest.mark.parametrize("model", MODELS)
def test_every_layer_tells_its_widths(model):
    """Code that wraps PyG's models reads them; of GAT's own layers ``out_channels`` is that of a head."""
    options = {"heads": 2} if model is MGICGAT else {}
    convs = model(8, 16, 3, **options, **SIZES).convs
    assert [(conv.in_channels, conv.out_channels) for conv in convs] == [(8, 16), (16, 16), (16, 16)]


@pytest.mark.parametrize("model", MODELS)
def test_transfers_start_as_those_of_the_layer(model):
    starts = [m.init for m in model(8, 16, 3, 5, **SIZES).modules() if isinstance(m, Restriction)]
    assert starts == ["signed"]
    net = model(8, 16, 3, 5, transfer_init="random", **SIZES)
    assert [m.init for m in net.modules() if isinstance(m, Restriction)] == ["random"]


def test_corrections_may_have_a_normalisation_of_their_own():
    layer = MGICGraphConv(16, 16, coarse_size=8, norm="layer_norm", correction_norm=None)
    assert isinstance(layer.cycle.norms[0], nn.Identity)
    assert isinstance(layer.cycle.blocks[0].norm, nn.LayerNorm)
    assert isinstance(MGICGraphConv(16, 16, coarse_size=8).cycle.norms[0], nn.BatchNorm1d)


def test_edge_weights_and_edge_features(graph):
    x, edge_index = graph
    weight, attr = torch.rand(40), torch.randn(40, 3)
    net = MGICGCN(8, 16, 3, 5, **SIZES).eval()
    assert not torch.allclose(net(x, edge_index, edge_weight=weight), net(x, edge_index))
    ones = net(x, edge_index, edge_weight=torch.ones(40))
    torch.testing.assert_close(ones, net(x, edge_index))
    for v2 in (False, True):
        gat = MGICGAT(8, 16, 3, 5, edge_dim=3, v2=v2, heads=2, **SIZES).eval()
        out = gat(x, edge_index, edge_attr=attr)
        assert not torch.allclose(gat(x, edge_index, edge_attr=attr.flip(0)), out)
        assert isinstance(gat.convs[1].cycle.blocks[-1].conv, GATv2Conv if v2 else GATConv)


def test_heads_are_concatenated_within_groups_and_averaged_in_logits(graph):
    net = MGICGAT(8, 16, 3, 5, heads=2, dropout=0.25, **SIZES)
    first, coarsest, last = net.convs[0].conv, net.convs[1].cycle.blocks[-1].conv, net.convs[2]
    assert (first.heads, first.out_channels, first.concat) == (2, 8, True)
    assert (coarsest.heads, coarsest.out_channels, coarsest.dropout) == (2, 4, 0.25)
    assert (last.heads, last.out_channels, last.concat) == (2, 5, False)
    assert MGICGAT(8, 16, 3, 5, heads=2, concat=False, **SIZES)(*graph).shape == (12, 5)
    with pytest.raises(ValueError, match="heads=8 must divide the width of a group"):
        MGICGAT(8, 16, 3, 5, heads=8, **SIZES)


def test_arguments_of_layers_arrive(graph):
    gin = MGICGIN(8, 16, 3, 5, train_eps=True, **SIZES)
    assert gin.convs[1].cycle.blocks[-1].conv.eps.requires_grad
    assert gin(*graph).shape == (12, 5)
    sage = MGICGraphSAGE(8, 16, 3, 5, aggr="max", min_levels=2, **SIZES)
    assert sage.convs[1].hierarchy.widths == (16, 8, 4)
    assert sage.convs[1].cycle.blocks[-1].conv.aggr == "max"


@pytest.mark.parametrize("model", MODELS)
def test_lazy_widths_and_reset(model, graph):
    lazy = model(-1, 16, 3, 5, **SIZES).eval()
    with torch.no_grad():
        lazy(*graph)
    known = model(8, 16, 3, 5, **SIZES).eval()
    known.load_state_dict(lazy.state_dict())
    torch.testing.assert_close(known(*graph), lazy(*graph))
    before = known(*graph)
    known.reset_parameters()
    assert not torch.allclose(known(*graph), before)


@pytest.mark.parametrize("width", [(8, 6), (-1, -1)])
def test_pairs_of_widths(width, graph):
    x, _ = graph
    net = MGICGraphSAGE(width, 16, 1, **SIZES)
    edges = torch.stack([torch.arange(12), torch.arange(12) % 4])
    assert net.convs[0]((x, torch.randn(4, 6)), edges).shape == (4, 16)


@pytest.mark.parametrize("model", MODELS)
def test_survives_saving_whole(model, graph):
    net = model(8, 16, 3, 5, **SIZES).eval()
    torch.save(net, file := io.BytesIO())
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(*graph), net(*graph))


def test_one_layer(graph):
    assert type(MGICGCN(8, 16, 1, 5).convs[0]) is GCNConv
    assert type(MGICGCN(8, 16, 1).convs[0]) is InputLayer
    assert MGICGCN(8, 16, 1, **SIZES)(*graph).shape == (12, 16)


def test_batches_of_graphs_equal_single_graphs():
    torch.manual_seed(0)
    graphs = [Data(x=torch.randn(n, 8), edge_index=torch.randint(n, (2, 3 * n))) for n in (5, 9, 7)]
    net = MGICGIN(8, 16, 3, jk="cat", out_channels=4, **SIZES).eval()
    (batch,) = DataLoader(graphs, batch_size=3)
    together = net(batch.x, batch.edge_index)
    apart = torch.cat([net(graph.x, graph.edge_index) for graph in graphs])
    assert oracles.relative_difference(together, apart) < 1e-5


def test_trains_on_parts_of_a_graph():
    torch.manual_seed(0)
    y = torch.arange(60) % 3
    same = torch.stack([torch.arange(60), (torch.arange(60) + 3) % 60])
    data = Data(x=F.one_hot(y, 8).float() + 0.3 * torch.randn(60, 8), edge_index=same, y=y)
    net = MGICGraphSAGE(8, 16, 3, 3, **SIZES)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    losses = []
    for _ in range(5):
        for part in RandomNodeLoader(data, num_parts=2):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(part.x, part.edge_index), part.y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert sum(losses[-2:]) < 0.5 * sum(losses[:2])
