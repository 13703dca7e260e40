import pytest
import torch
import torch_geometric.nn as pyg

from mgic_geo import EdgeConv, grouped, knn_graph
from mgic_geo.graph.grouped import GroupedConv, _construct

FAST = [
    (pyg.GCNConv, {}),
    (pyg.GCNConv, {"aggr": "max", "bias": False}),
    (pyg.SAGEConv, {}),
    (pyg.SAGEConv, {"project": True, "aggr": "max"}),
    (pyg.SAGEConv, {"root_weight": False}),
    (pyg.GraphConv, {}),
    (pyg.GraphConv, {"aggr": "mean"}),
    (pyg.GINConv, {}),
    (pyg.GATv2Conv, {}),
    (pyg.GATv2Conv, {"heads": 2}),
    (pyg.GATv2Conv, {"heads": 2, "residual": True}),
    (pyg.GATv2Conv, {"share_weights": True}),
    (EdgeConv, {"norm": None}),
    (EdgeConv, {}),
]
GENERAL = [
    (pyg.SAGEConv, {"normalize": True}),
    (pyg.SAGEConv, {"aggr": ["mean", "max"]}),
    (pyg.GINConv, {"train_eps": True}),
    (pyg.GATv2Conv, {"heads": 2, "concat": False}),
    (pyg.TAGConv, {}),
    (pyg.ChebConv, {"K": 2}),
    (pyg.LEConv, {}),
]


def stacked(small, like):
    """The state of the grouped layer from those of the small ones, joined along the axis that grew."""
    states, state = [layer.state_dict() for layer in small], {}
    for name, value in like.state_dict().items():
        parts = [s[name] for s in states]
        grew = [axis for axis in range(value.dim()) if value.size(axis) != parts[0].size(axis)]
        state[name] = torch.cat(parts, grew[0]) if grew else parts[0]
    return state


def name_of(value):
    return getattr(value, "__name__", "-".join(map(str, value)) if isinstance(value, dict) else str(value))


@pytest.mark.parametrize(("conv", "kwargs"), FAST, ids=name_of)
@pytest.mark.parametrize("groups", [2, 4])
def test_the_fast_path_equals_small_layers(conv, kwargs, groups):
    torch.manual_seed(0)
    x = torch.randn(30, 16, requires_grad=True)
    edge_index = knn_graph(x.detach(), 5)
    layer = grouped(conv, groups)(16, 32, **kwargs)
    assert not isinstance(layer, GroupedConv)
    small = [_construct(conv, 16 // groups, 32 // groups, kwargs) for _ in range(groups)]
    layer.load_state_dict(stacked(small, layer))
    out = layer(x, edge_index)
    twin = torch.cat([s(part, edge_index) for s, part in zip(small, x.chunk(groups, 1), strict=True)], 1)
    torch.testing.assert_close(out, twin, rtol=1e-4, atol=1e-5)
    upstream = torch.randn_like(twin)
    (a,), (b,) = torch.autograd.grad(out, x, upstream), torch.autograd.grad(twin, x, upstream)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("conv", "kwargs"), [*FAST, *GENERAL], ids=name_of)
def test_a_group_sees_itself_only(conv, kwargs):
    torch.manual_seed(0)
    x = torch.randn(20, 16)
    edge_index = knn_graph(x, 4)
    layer = grouped(conv, 4)(16, 32, **kwargs)
    layer.reset_parameters()
    before = layer(x, edge_index)
    x[:, 4:8] += 1
    changed = (layer(x, edge_index) - before).abs().amax(0) > 0
    assert before.shape == (20, 32)
    assert changed[8:16].any()
    assert not changed[:8].any()
    assert not changed[16:].any()


@pytest.mark.parametrize(("conv", "kwargs"), GENERAL, ids=name_of)
def test_what_mixes_channels_takes_the_general_path(conv, kwargs):
    layer = grouped(conv, 4)(16, 32, **kwargs)
    assert isinstance(layer, GroupedConv)
    assert len(layer.convs) == 4


def test_arguments_pass_through():
    torch.manual_seed(0)
    x, edge_index = torch.randn(12, 8), torch.randint(12, (2, 40))
    weight, attributes = torch.rand(40), torch.randn(40, 3)
    gcn = grouped(pyg.GCNConv, 2)(8, 8)
    assert not torch.equal(gcn(x, edge_index, weight), gcn(x, edge_index))
    gat = grouped(pyg.GATv2Conv, 2)(8, 8, edge_dim=3)
    assert not torch.equal(gat(x, edge_index, attributes), gat(x, edge_index, 2 * attributes))
    pair = grouped(pyg.SAGEConv, 2)(8, 8)((x, x[:5]), torch.randint(5, (2, 9)))
    assert pair.shape == (5, 8)
    pair = GroupedConv(pyg.SAGEConv, 2, 8, 8)((x, x[:5]), torch.randint(5, (2, 9)))
    assert pair.shape == (5, 8)


def test_each_group_starts_like_a_small_layer():
    torch.manual_seed(0)
    layer = grouped(pyg.GCNConv, 8)(512, 512)
    bound = pyg.GCNConv(64, 64).lin.weight.abs().max()
    assert 0.9 * bound < layer.lin.weight.abs().max() < 1.1 * bound


def test_one_group_is_the_layer_itself():
    assert type(grouped(pyg.SAGEConv, 1)(4, 8)) is pyg.SAGEConv


def test_errors_name_value_and_remedy():
    with pytest.raises(ValueError, match="groups=3 must divide in_channels=8"):
        grouped(pyg.SAGEConv, 3)(8, 8)
    with pytest.raises(ValueError, match=r"heads=3 must divide the width of a group, 4 channels"):
        grouped(pyg.GATv2Conv, 2)(8, 8, heads=3)
    with pytest.raises(ValueError, match="leave nn out"):
        grouped(pyg.GINConv, 2)(8, 8, nn=torch.nn.Linear(8, 8))


def test_repr():
    assert repr(grouped(pyg.TAGConv, 2)(8, 8)) == "GroupedConv(2 x TAGConv(4, 4, K=3))"
