import copy

import pytest
import torch
import torch_geometric.nn as pyg

from mgic_geo.convert.arguments import built, read_arguments

PNA = {
    "aggregators": ["mean", "std"],
    "scalers": ["identity", "attenuation"],
    "deg": torch.tensor([0, 3, 5, 2]),
}
LAYERS = [
    pyg.GCNConv(16, 16, improved=True, bias=False),
    pyg.GCNConv(16, 16, flow="target_to_source"),
    pyg.SAGEConv(16, 32, aggr="max", project=True, normalize=True),
    pyg.GraphConv(16, 16, aggr="mean"),
    pyg.GATConv(16, 4, heads=4, negative_slope=0.1, edge_dim=3, residual=True),
    pyg.GATv2Conv(16, 16, heads=4, concat=False, share_weights=True),
    pyg.TransformerConv(16, 4, heads=4, beta=True),
    pyg.ChebConv(16, 16, K=3, normalization="rw"),
    pyg.TAGConv(16, 16, K=2),
    pyg.ARMAConv(16, 16, num_stacks=2, act=torch.tanh),
    pyg.GINConv(pyg.MLP([16, 16, 16], norm=None), eps=0.5, train_eps=True, aggr="mean"),
    pyg.PNAConv(16, 16, towers=2, divide_input=True, pre_layers=2, post_layers=2, **PNA),
    pyg.RGCNConv(16, 16, num_relations=3, num_bases=2),
    pyg.GENConv(16, 32),
    pyg.MFConv(16, 32, max_degree=3),
    pyg.MFConv(16, 16, bias=False),
    pyg.EGConv(16, 16, aggregators=["sum", "max"], num_heads=4, num_bases=2),
    pyg.PointTransformerConv(16, 16),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_a_layer_built_again_computes_the_same(layer):
    width_in, width_out, arguments = read_arguments(layer)
    again = built(arguments, width_in, width_out)
    again.load_state_dict(layer.state_dict())
    torch.manual_seed(0)
    graph = torch.randint(20, (2, 60))
    more = []
    if isinstance(layer, pyg.RGCNConv):
        more = [torch.randint(3, (60,))]
    elif isinstance(layer, pyg.PointTransformerConv):
        graph, more = torch.randn(20, 3), [graph]
    elif getattr(layer, "edge_dim", None):
        more = [torch.randn(60, 3)]
    x = torch.randn(20, width_in)
    expected = layer.eval()(x, graph, *more)
    assert expected.shape == (20, width_out)
    torch.testing.assert_close(again.eval()(x, graph, *more), expected)


def test_heads_and_towers_are_shared_out_among_groups():
    _, _, attention = read_arguments(pyg.GATConv(32, 4, heads=8))
    x, graph = torch.randn(20, 32), torch.randint(20, (2, 60))
    for groups in (1, 4, 8):
        layer = built(attention, 32, 32, groups)
        assert layer(x, graph).shape == (20, 32)
    _, _, bases = read_arguments(pyg.EGConv(32, 32, num_heads=16))
    assert [built(bases, 32, 32, groups)(x, graph).shape for groups in (1, 4, 8)] == [(20, 32)] * 3
    _, _, towers = read_arguments(pyg.PNAConv(32, 32, towers=4, **PNA))
    layer = built(towers, 32, 32, 2)
    inner = [m for m in layer.modules() if isinstance(m, pyg.DegreeScalerAggregation)]
    assert [float(m.avg_deg_lin) for m in inner] == [pytest.approx(1.9)] * len(inner)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (pyg.SAGEConv((8, 16), 16), "it takes pairs of inputs"),
        (pyg.GCNConv(-1, 16), "its width is not known yet"),
        (pyg.GatedGraphConv(16, 2), "GatedGraphConv is not built from two widths"),
        (pyg.GINConv(torch.nn.Linear(16, 16)), "its nn is no MLP"),
        (pyg.GINConv(pyg.MLP([16, 16, 16])), "GINConv built again differs in its parts"),
        (pyg.NNConv(16, 16, torch.nn.Linear(3, 256)), "NNConv could not be built again"),
        (
            pyg.PointTransformerConv(16, 16, pos_nn=pyg.MLP([3, 16, 16])),
            "PointTransformerConv built again differs in its parts",
        ),
        (pyg.ARMAConv(16, 16, act=torch.nn.PReLU()), "ARMAConv built again differs in its parts"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_says_why_a_layer_cannot_be_built(layer, reason):
    assert read_arguments(layer).startswith(reason)


def test_a_setting_that_was_changed_later_is_noticed():
    layer = pyg.GCNConv(16, 16)
    layer.in_channels = 16
    layer.extra_setting = 3
    assert read_arguments(layer) == "GCNConv built again differs in extra_setting"


def test_no_weights_are_shared_between_levels():
    *_, arguments = read_arguments(pyg.PointTransformerConv(16, 16))
    one, other = (built(arguments, 16, 16) for _ in range(2))
    assert not {id(p) for p in one.parameters()} & {id(p) for p in other.parameters()}


def test_what_a_call_sets_makes_no_difference():
    layer = pyg.FastRGCNConv(16, 16, num_relations=3, num_bases=2)
    layer(torch.randn(20, 16), torch.randint(20, (2, 60)), torch.randint(3, (60,)))
    assert not layer.fuse
    assert not isinstance(read_arguments(layer), str)


class Scaled(pyg.MessagePassing):
    """Someone's own layer with a number that is no argument."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.lin = torch.nn.Linear(in_channels, out_channels)
        self.norm = torch.nn.BatchNorm1d(out_channels)
        self.register_buffer("scale", torch.full((1,), 1.1))


def test_a_buffer_of_other_values_would_be_lost():
    layer = Scaled(16, 16)
    layer.norm.running_mean.fill_(3.0)  # statistics start anew
    assert not isinstance(read_arguments(layer), str)
    assert not isinstance(read_arguments(copy.deepcopy(layer).half()), str)
    assert not isinstance(read_arguments(copy.deepcopy(layer).to("meta")), str)
    layer.scale.fill_(5.0)
    assert read_arguments(layer) == "Scaled built again differs in scale"
    degrees = pyg.PNAConv(16, 16, **PNA)
    degrees.aggr_module.avg_deg_lin.fill_(9.0)
    assert read_arguments(degrees) == "PNAConv built again differs in aggr_module.avg_deg_lin"
    kept = Scaled(16, 16)
    kept.register_buffer("seen", torch.zeros(1), persistent=False)
    assert read_arguments(kept) == "Scaled built again differs in seen"
