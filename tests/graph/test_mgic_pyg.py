"""MGICGraphConv in what PyG builds of layers: Sequential, heterogeneous models, sampled bipartite graphs."""

import copy

import oracles
import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch_geometric.utils import get_embeddings, get_num_hops, k_hop_subgraph

from mgic_geo import MGICGAT, MGICGCN, EdgeConv, MGICGraphConv, MGICGraphSAGE, grouped

SIZES = {"group_size": 4, "coarse_size": 8}
METADATA = (
    ["author", "paper"],
    [("author", "writes", "paper"), ("paper", "by", "author"), ("paper", "cites", "paper")],
)


@pytest.fixture
def world():
    """Features of 9 authors, 12 channels, and 7 papers, 10 channels, and their edges."""
    torch.manual_seed(0)
    x = {"author": torch.randn(9, 12), "paper": torch.randn(7, 10)}
    ends = {"author": 9, "paper": 7}
    edges = {
        kind: torch.stack([torch.randint(ends[kind[0]], (20,)), torch.randint(ends[kind[2]], (20,))])
        for kind in METADATA[1]
    }
    return x, edges


def layer_of(conv, width_in=16, width_out=16, **kwargs):
    torch.manual_seed(1)
    return MGICGraphConv(width_in, width_out, conv=conv, **{**SIZES, **kwargs}).eval()


def test_it_is_a_message_passing_layer():
    layer = layer_of(pyg.SAGEConv, flow="target_to_source")
    assert isinstance(layer, pyg.MessagePassing)
    assert (layer.num_hops, layer.flow) == (2, "target_to_source")
    assert not layer.add_self_loops
    assert layer_of(pyg.GCNConv).add_self_loops
    assert get_num_hops(layer) >= layer.num_hops
    x, edge_index = torch.randn(9, 16), torch.randint(9, (2, 30))
    assert torch.equal(get_embeddings(layer, x, edge_index)[-1], layer(x, edge_index))


def test_sequential_hands_on_all_arguments():
    torch.manual_seed(0)
    model = pyg.Sequential(
        "x, edge_index, edge_weight, batch",
        [
            (layer_of(pyg.GCNConv, 8, 16), "x, edge_index, edge_weight -> x1"),
            (layer_of(pyg.GCNConv, 16, 16), "x1, edge_index -> x2"),
            (lambda a, b: torch.cat([a, b], 1), "x1, x2 -> x"),
            (pyg.global_mean_pool, "x, batch -> x"),
            nn.Linear(32, 2),
        ],
    ).eval()
    x, edge_index, weight = torch.randn(9, 8), torch.randint(9, (2, 30)), torch.rand(30)
    batch = torch.arange(9) // 5
    first = model[0](x, edge_index, weight)
    pooled = pyg.global_mean_pool(torch.cat([first, model[1](first, edge_index)], 1), batch)
    torch.testing.assert_close(model(x, edge_index, weight, batch), model[4](pooled))


class Plain(nn.Module):
    """A model of one's own; widths as given."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = MGICGraphConv(width, 16, **SIZES)
        self.conv2 = MGICGraphConv(16, 16, conv=pyg.GATv2Conv, add_self_loops=False, heads=2, **SIZES)
        self.lin = nn.Linear(16, 3)

    def forward(self, x, edge_index):
        x = self.conv1(x, edge_index)
        return self.lin(self.conv2(x, edge_index))


def test_to_hetero_is_one_layer_an_edge_type(world):
    x, edges = world
    net = pyg.to_hetero(Plain((-1, -1)), METADATA, aggr="sum").eval()
    with torch.no_grad():
        net(x, edges)
    hidden = {}
    for name, layers in (("conv1", net.conv1), ("conv2", net.conv2)):
        source = hidden if name == "conv2" else x
        parts = {"author": [], "paper": []}
        for kind in METADATA[1]:
            ends = source[kind[0]] if kind[0] == kind[2] else (source[kind[0]], source[kind[2]])
            parts[kind[2]].append(layers["__".join(kind)](ends, edges[kind]))
        hidden = {node: sum(outs) for node, outs in parts.items()}
    out = net(x, edges)
    for node, features in hidden.items():
        torch.testing.assert_close(out[node], net.lin[node](features))
    sum(o.square().sum() for o in out.values()).backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("jk", [None, "cat"])
@pytest.mark.parametrize("width", [-1, (-1, -1)])
@pytest.mark.parametrize("model", [MGICGraphSAGE, MGICGAT])
def test_the_models_become_heterogeneous(model, width, jk, world):
    x, edges = world
    if width == -1:  # a single width is that of all kinds of nodes
        x = {node: features[:, :10] for node, features in x.items()}
    options = {"add_self_loops": False} if model is MGICGAT else {}
    net = pyg.to_hetero(model(width, 16, 3, 3, jk=jk, **SIZES, **options), METADATA)
    with torch.no_grad():
        net(x, edges)
    out = net(x, edges)
    assert {node: tuple(o.shape) for node, o in out.items()} == {"author": (9, 3), "paper": (7, 3)}
    sum(o.square().sum() for o in out.values()).backward()
    assert all(p.grad is not None for p in net.parameters())


class Alike(nn.Module):
    """Two layers of one kind and width, as ``make`` makes them."""

    def __init__(self, make):
        super().__init__()
        self.conv1, self.conv2 = make(), make()

    def forward(self, x, edge_index):
        return self.conv2(self.conv1(x, edge_index), edge_index)


def test_to_hetero_of_edge_convs_is_that_of_pygs(world):
    x, edges = world
    x = {node: features[:, :10] for node, features in x.items()}
    torch.manual_seed(0)
    net = pyg.to_hetero(Alike(lambda: EdgeConv(10, 10)), METADATA).eval()
    twin = pyg.to_hetero(Alike(lambda: oracles.pyg_edge_conv(EdgeConv(10, 10))), METADATA).eval()
    for ours, theirs in ((net.conv1, twin.conv1), (net.conv2, twin.conv2)):
        assert list(ours) == list(theirs) == ["__".join(kind) for kind in METADATA[1]]
        for name, conv in ours.items():
            theirs[name] = oracles.pyg_edge_conv(conv)
    out, expected = net(x, edges), twin(x, edges)
    assert out.keys() == expected.keys() == {"author", "paper"}
    for node in out:
        torch.testing.assert_close(out[node], expected[node])


@pytest.mark.parametrize("conv", [pyg.SAGEConv, pyg.SuperGATConv], ids=lambda conv: conv.__name__)
def test_to_hetero_of_grouped_layers(conv):
    torch.manual_seed(0)
    options = {"add_self_loops": False} if conv is pyg.SuperGATConv else {}
    kinds = (["paper"], [("paper", "cites", "paper"), ("paper", "follows", "paper")])
    net = pyg.to_hetero(Alike(lambda: grouped(conv, 2)(8, 8, **options)), kinds, aggr="mean").eval()
    x = torch.randn(9, 8)
    edges = {kind: torch.randint(9, (2, 20)) for kind in kinds[1]}
    expected = x
    for layer in (net.conv1, net.conv2):
        parts = [layer["__".join(kind)](expected, edges[kind]) for kind in kinds[1]]
        expected = (parts[0] + parts[1]) / 2
    torch.testing.assert_close(net({"paper": x}, edges)["paper"], expected)


@pytest.mark.parametrize("conv", [pyg.GCNConv, pyg.GCN2Conv, pyg.SuperGATConv], ids=lambda c: c.__name__)
def test_grouped_layers_are_message_passing_layers(conv):
    options = {"alpha": 0.1} if conv is pyg.GCN2Conv else {}
    for loops in (True, False):
        layer = grouped(conv, 2)(8, 8, add_self_loops=loops, flow="target_to_source", **options)
        assert isinstance(layer, pyg.MessagePassing)
        assert (layer.add_self_loops, layer.flow) == (loops, "target_to_source")
    assert not grouped(pyg.SAGEConv, 2)(8, 8).add_self_loops
    with pytest.raises(ValueError, match=r"'add_self_loops' attribute set to 'True' on module"):
        pyg.to_hetero(Alike(lambda: grouped(conv, 2)(8, 8, **options)), METADATA)


def test_to_hetero_refuses_self_loops_between_two_kinds():
    with pytest.raises(ValueError, match="'add_self_loops' attribute set to 'True' on module 'InputLayer"):
        pyg.to_hetero(MGICGCN(8, 16, 2, 3), METADATA)
    net = Plain(16)
    net.conv1 = layer_of(pyg.GCNConv)
    with pytest.raises(ValueError, match="'add_self_loops' attribute set to 'True' on module 'MGICGraphConv"):
        pyg.to_hetero(net, METADATA)


@pytest.mark.parametrize("conv", [pyg.SAGEConv, pyg.GraphConv, pyg.GATv2Conv, pyg.GINConv])
def test_a_bipartite_batch_of_seeds_follows_the_definition(conv):
    """Targets are the first sources, as samplers order them; ``size`` names both sides."""
    torch.manual_seed(0)
    x, edge_index = torch.randn(40, 16), torch.randint(40, (2, 160))
    seeds = torch.tensor([3, 11, 29])
    nodes, _, _, mask = k_hop_subgraph(seeds, 1, edge_index, num_nodes=40)
    chosen = edge_index[:, mask][:, torch.isin(edge_index[1, mask], seeds)]
    order = torch.cat([seeds, nodes[~torch.isin(nodes, seeds)]])
    place = torch.zeros(40, dtype=torch.long)
    place[order] = torch.arange(len(order))
    options = {"add_self_loops": False} if conv is pyg.GATv2Conv else {}
    layer = layer_of(conv, norm="layer_norm", **options)
    pair = (x[order], x[seeds])
    size = {} if conv is pyg.GATv2Conv else {"size": (len(order), 3)}
    out = layer(pair, place[chosen], **size)
    torch.testing.assert_close(out, layer((x, x), edge_index)[seeds])
    # Algorithm 1 with the sources restricted and read: two levels, 16 and 8 channels.
    (fine, coarse), (restrict,), (prolong,) = (
        layer.cycle.blocks, layer.cycle.restrictions, layer.cycle.prolongations
    )  # fmt: skip
    low = [restrict(side) for side in pair]
    deep = low[1] + coarse.norm(coarse.conv((low[0], low[1]), place[chosen])).relu()
    high = pair[1] + layer.cycle.norms[0](prolong(deep - low[1]))
    expected = high + fine.norm(fine.conv((pair[0], high), place[chosen])).relu()
    torch.testing.assert_close(out, expected)


def test_copies_and_pickles_do_not_share(world):
    layer = layer_of(pyg.SAGEConv)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.cycle.blocks[-1].conv.lin_l.weight.zero_()
    x, edge_index = torch.randn(9, 16), torch.randint(9, (2, 30))
    assert not torch.allclose(twin(x, edge_index), layer(x, edge_index))
