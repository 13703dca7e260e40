import contextlib
import copy
import io

import oracles
import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn

from mgic_geo import replace_convs
from mgic_geo.convert.forms import Sizes
from mgic_geo.convert.messages import MGICMessagePassing, message_form
from mgic_geo.graph.graph_block import Levels

SIZES = Sizes(8, 8)


def graph(nodes=20, edges=80):
    return torch.randint(nodes, (2, edges), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "conv",
    [
        pyg.GCNConv(32, 32), pyg.SAGEConv(32, 32), pyg.GATConv(32, 8, heads=4), pyg.GraphConv(64, 32),
        pyg.GINConv(pyg.MLP([32, 32, 32], norm=None)),
    ],
    ids=lambda conv: type(conv).__name__,
)  # fmt: skip
def test_couples_all_channels_and_has_fewer_parameters(conv):
    torch.manual_seed(0)
    new = message_form(conv)(SIZES)
    x, edges = torch.randn(20, new.in_channels, requires_grad=True), graph()
    out = new(x, edges)
    assert out.shape == (20, 32)
    twin = oracles.v_cycle(_on(new.cycle, edges), new.shortcut(x))
    torch.testing.assert_close(out, twin)
    assert sum(p.numel() for p in new.parameters()) < sum(p.numel() for p in conv.parameters())
    out.sum().backward()
    assert all(p.grad is not None for p in new.parameters())


def _on(cycle, edges, source=None):
    """The cycle with its graph, and what is gathered from, filled in."""

    class Level(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, x):
            return self.block(x, source, edges)

    twin = nn.Module()
    twin.hierarchy, twin.restrictions, twin.prolongations = (
        cycle.hierarchy, cycle.restrictions, cycle.prolongations,
    )  # fmt: skip
    twin.norms, twin.blocks = cycle.norms, [Level(block) for block in cycle.blocks]
    return twin


def test_passes_on_weights_and_keeps_the_bias():
    conv = pyg.GCNConv(32, 32)
    nn.init.normal_(conv.bias)
    new = message_form(conv)(SIZES)
    assert torch.equal(torch.cat([small.bias for small in new.cycle.blocks[0].conv.split()]), conv.bias)
    x, edges = torch.randn(20, 32), graph()
    weighted = new(x, edges, edge_weight=torch.rand(80))
    assert not torch.allclose(weighted, new(x, edges))


def test_resets_saves_and_shows_its_plan():
    torch.manual_seed(0)
    new = message_form(pyg.SAGEConv(16, 32))(SIZES)
    before = {name: value.clone() for name, value in new.named_parameters()}
    new.reset_parameters()
    assert all(not torch.equal(value, before[name]) for name, value in new.named_parameters())
    torch.save(new, file := io.BytesIO())
    file.seek(0)
    x, edges = torch.randn(20, 16), graph()
    assert torch.equal(torch.load(file, weights_only=False)(x, edges), new(x, edges))
    assert "MGICMessagePassing(16, 32, conv=SAGEConv, ChannelHierarchy(32 in 4 groups" in repr(new)


PAIRED = [
    pyg.SAGEConv(32, 32), pyg.GATConv(32, 8, heads=4), pyg.GATv2Conv(32, 32), pyg.GraphConv(64, 32),
    pyg.TransformerConv(32, 32),
]  # fmt: skip


@pytest.mark.parametrize("conv", PAIRED, ids=lambda conv: type(conv).__name__)
def test_of_pairs_the_targets_go_through_the_cycle(conv):
    torch.manual_seed(0)
    new = message_form(conv)(SIZES)
    source, target = (torch.randn(n, new.in_channels, requires_grad=True) for n in (20, 10))
    edges = torch.stack([torch.randint(20, (60,)), torch.randint(10, (60,))])
    out = new((source, target), edges)
    assert out.shape == conv((source, target), edges).shape == (10, 32)
    read = [new.shortcut(source)]
    for restrict in new.cycle.restrictions:
        read.append(restrict(read[-1]))
    twin = oracles.v_cycle(_on(new.cycle, edges, Levels(tuple(read))), new.shortcut(target))
    torch.testing.assert_close(out, twin)
    out.square().sum().backward()
    assert all(side.grad.abs().sum() > 0 for side in (source, target))


def test_a_level_alone_is_the_layer_itself_on_pairs():
    torch.manual_seed(0)
    new = message_form(pyg.SAGEConv(32, 32))(Sizes(32, 31))
    (*_, coarsest) = new.cycle.blocks
    source, target, edges = torch.randn(20, 16), torch.randn(20, 16), graph()
    read = Levels((torch.randn(20, 32), source))
    torch.testing.assert_close(coarsest(target, read, edges), coarsest.conv((source, target), edges))


def test_what_takes_no_pairs_says_so_and_narrow_layers_are_left():
    x = torch.randn(20, 32)
    for conv, pair in ((pyg.SAGEConv(32, 32), (x, None)), (pyg.GCNConv(32, 32), (x, x))):
        with pytest.raises(
            ValueError, match=r"pair is \(sources, targets\), got no targets; leave .*unconverted|a tuple"
        ):
            message_form(conv)(SIZES)(pair, graph())
    assert message_form(pyg.SAGEConv((32, 32), 32)) == "it takes pairs of inputs"
    assert message_form(pyg.SAGEConv(32, 8))(SIZES) == "too narrow: 8 channels, coarse_size=8"
    assert message_form(pyg.GatedGraphConv(16, 2)) == "GatedGraphConv is not built from two widths"


def test_refuses_what_the_block_refuses():
    new, x, edges = message_form(pyg.GCNConv(32, 32))(SIZES), torch.randn(20, 32), graph()
    for features, graph_, told in (
        (x[:, :16], edges, "in_channels=32 floating-point channels, got shape"),
        (x.long(), edges, "floating-point channels"),
        (x, edges.t(), r"edge_index has shape \(2, E\)"),
        (x, edges.float(), "edge_index holds integers"),
        (x[:10], edges, r"source indices must lie in \[0, 10\)"),
    ):
        with pytest.raises(ValueError, match=told):
            new(features, graph_)
    with pytest.raises(ValueError, match="edge_weight needs a row for each of the 80 edges"):
        new(x, edges, torch.ones(79))
    torch.testing.assert_close(new(x, edges.int()), new(x, edges))


@pytest.mark.parametrize("conv", [pyg.GCNConv(32, 32), pyg.SAGEConv(32, 32)])
def test_features_of_one_graph_in_a_stack_stay_apart(conv):
    """PyG's layers take (..., N, C) on one graph of N nodes."""
    new, x, edges = message_form(conv)(SIZES), torch.randn(3, 20, 32), graph()
    torch.testing.assert_close(new(x, edges), torch.stack([new(part, edges) for part in x]))
    torch.testing.assert_close(new(torch.stack([x, -x]), edges), torch.stack([new(x, edges), new(-x, edges)]))
    with pytest.raises(ValueError, match=r"x has shape \(..., nodes, channels\), got \(32,\)"):
        new(x[0, 0], edges)


class Net(nn.Module):
    """Two layers, to be converted."""

    def __init__(self, conv):
        super().__init__()
        self.conv1, self.conv2 = conv(32, 32), conv(32, 32)

    def forward(self, x, edge_index):
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


def test_converted_models_become_heterogeneous():
    torch.manual_seed(0)
    kinds = (["a", "b"], [("a", "to", "b"), ("b", "back", "a")])
    net = replace_convs(Net(pyg.SAGEConv), group_size=8, coarse_size=8, skip_ends=False)
    assert isinstance(net.conv1, MGICMessagePassing)
    hetero = pyg.to_hetero(net, kinds)
    x = {"a": torch.randn(9, 32), "b": torch.randn(7, 32)}
    ends = {"a": 9, "b": 7}
    edges = {
        k: torch.stack([torch.randint(ends[k[0]], (20,)), torch.randint(ends[k[2]], (20,))]) for k in kinds[1]
    }
    hidden = x
    for layers, act in ((hetero.conv1, torch.relu), (hetero.conv2, lambda out: out)):
        hidden = {
            end: act(layers[f"{start}__{name}__{end}"]((hidden[start], hidden[end]), edges[start, name, end]))
            for start, name, end in kinds[1]
        }
    out = hetero(x, edges)
    for node in x:
        torch.testing.assert_close(out[node], hidden[node])
    looped = replace_convs(Net(pyg.GCNConv), group_size=8, coarse_size=8, skip_ends=False)
    with pytest.raises(ValueError, match="'add_self_loops' attribute set to 'True' on module 'MGICMessage"):
        pyg.to_hetero(looped, kinds)


def test_passes_messages_the_way_the_layer_does():
    assert message_form(pyg.SAGEConv(32, 32, flow="target_to_source"))(SIZES).flow == "target_to_source"
    assert message_form(pyg.SAGEConv(32, 32))(SIZES).flow == "source_to_target"


@pytest.mark.parametrize("conv", [pyg.GCNConv, pyg.GraphConv, pyg.GATConv, pyg.ResGatedGraphConv])
def test_starts_near_the_scale_of_the_layer(conv):
    """Gains of levels multiply otherwise: sums over eight neighbours, four levels."""
    torch.manual_seed(0)
    old, x, edges = conv(64, 64), torch.randn(100, 64), graph(100, 800)
    new, dense = message_form(old)(SIZES), old(x, edges).std()
    assert 0.6 < new(x, edges).std() / dense < 1.7
    new.reset_parameters()
    assert 0.6 < new(x, edges).std() / dense < 1.7


@pytest.mark.parametrize("init", [None, "project"])
@pytest.mark.parametrize(
    ("conv", "told"),
    [
        (pyg.GCNConv(32, 32, cached=True), contextlib.nullcontext()),
        (
            pyg.SGConv(32, 32, 2, cached=True),
            pytest.warns(UserWarning, match=r"SGConv\(cached=True\) is converted with cached=False"),
        ),
    ],
    ids=["GCNConv", "SGConv"],
)
def test_a_graph_that_is_kept_is_the_models_own_and_features_are_not_kept(conv, told, init):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = copy.deepcopy(conv)

        def forward(self, x, edges):
            return self.conv(x, edges)

    with told:
        new = replace_convs(Net(), 8, 8, skip_ends=False, init=init, steps=2)
    x, edges = torch.randn(20, 32), graph()
    again = copy.deepcopy(new)
    for module in again.modules():
        if hasattr(module, "cached"):
            module.cached = False
    for _ in range(2):
        out = new(x, edges)
        torch.testing.assert_close(out, again(x, edges))
        new.zero_grad()
        out.sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in new.parameters())


def test_what_only_the_layer_has_is_not_lost():
    assert message_form(pyg.SuperGATConv(32, 32)).startswith("its attention loss")

    class Even(pyg.GCNConv):
        def __init__(self, in_channels, out_channels):
            if in_channels != 32:
                raise ValueError("this width only")
            super().__init__(in_channels, out_channels)

    assert message_form(Even(32, 32))(SIZES) == "it could not be built at other widths: this width only"


def test_a_layer_that_takes_more_than_a_graph_keeps_its_start():
    torch.manual_seed(0)
    new = message_form(pyg.TransformerConv(32, 32, edge_dim=3))(SIZES)
    for prolong in new.cycle.prolongations:
        rows = prolong.map.weight.detach()
        assert rows.square().mean().sqrt() * rows.size(1) ** 0.5 == pytest.approx(1, rel=0.2)
