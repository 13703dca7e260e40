"""Options of grouped layers: what keeps to the fast path, what declines it, and errors."""

import copy
import functools
import pickle

import grouping
import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn

from mgic_geo import EdgeConv, grouped, knn_graph
from mgic_geo.benchmark.pyg_layers import example_graph, inputs_of
from mgic_geo.graph.grouped import GroupedConv
from mgic_geo.graph.grouped.fast import WideConv

PNA = {"aggregators": ["mean", "std"], "scalers": ["identity", "linear"], "deg": torch.tensor([0, 3, 4, 5])}
FAST = [
    (pyg.ARMAConv, {"num_stacks": 2, "num_layers": 3}),
    (pyg.ARMAConv, {"num_layers": 2, "shared_weights": True, "bias": False, "act": nn.Tanh()}),
    (pyg.ChebConv, {"K": 3, "normalization": "rw"}),
    (pyg.FiLMConv, {"num_relations": 2, "act": torch.tanh}),
    (pyg.GATConv, {"heads": 2, "residual": True, "edge_dim": 3}),
    (pyg.GATv2Conv, {"share_weights": True}),
    (pyg.GATv2Conv, {"heads": 2, "residual": True}),
    (pyg.GCNConv, {"aggr": "max", "bias": False}),
    (pyg.GCNConv, {"cached": True, "aggr": "softmax"}),
    (pyg.GENConv, {"norm": None, "aggr": "power", "num_layers": 3, "bias": True}),
    (pyg.GINConv, {"eps": 0.5}),
    (pyg.GatedGraphConv, {"num_layers": 2, "bias": False}),
    (pyg.GeneralConv, {"heads": 2, "directed_msg": False, "skip_linear": True}),
    (pyg.GeneralConv, {"in_edge_channels": 3}),
    (pyg.LEConv, {"aggr": "std"}),  # of GraphConv, PyG would then refuse sparse graphs in the whole process
    (pyg.NNConv, {"edge_dim": 3, "root_weight": False, "aggr": "mean"}),
    (pyg.PNAConv, {**PNA, "towers": 2, "pre_layers": 2, "post_layers": 2, "act": "elu"}),
    (pyg.ResGatedGraphConv, {"root_weight": False}),
    (pyg.SAGEConv, {"project": True, "aggr": "max"}),
    (pyg.SAGEConv, {"root_weight": False}),
    (pyg.TransformerConv, {"heads": 2, "root_weight": False}),
    (EdgeConv, {"norm": None}),
    (EdgeConv, {"bias": True, "act": "leaky_relu"}),
]
SAME_WIDTH = [
    (pyg.CGConv, {"dim": 3, "batch_norm": True}),
    (pyg.GCN2Conv, {"alpha": 0.1, "theta": 0.5, "layer": 2, "shared_weights": False}),
    (pyg.GCN2Conv, {"alpha": 0.1, "normalize": False}),
    (pyg.SimpleConv, {"combine_root": "sum", "aggr": "mean"}),
]
GENERAL = [
    (pyg.ARMAConv, {"act": nn.PReLU()}),
    (pyg.GATv2Conv, {"heads": 2, "concat": False}),
    (pyg.GCNConv, {"aggr": "softmax", "aggr_kwargs": {"learn": True}}),
    (pyg.GENConv, {"learn_t": True}),
    (pyg.GENConv, {"msg_norm": True}),
    (pyg.GENConv, {"norm": "layer"}),
    (pyg.GENConv, {"edge_dim": 4}),  # a group's own width: no map reads the edge features
    (pyg.GENConv, {"edge_dim": 16}),
    (pyg.GINConv, {"train_eps": True}),
    (pyg.GeneralConv, {"attention": True}),
    (pyg.PNAConv, {**PNA, "towers": 2, "divide_input": True}),
    (pyg.PNAConv, {**PNA, "train_norm": True}),
    (pyg.ResGatedGraphConv, {"act": nn.Softmax(dim=-1)}),
    (pyg.SAGEConv, {"aggr": ["mean", "max"]}),
    (pyg.SAGEConv, {"normalize": True}),
    (pyg.TransformerConv, {"beta": True}),
    *[(conv, {"flow": "target_to_source"}) for conv in (pyg.CGConv, pyg.GATv2Conv, pyg.PointNetConv)],
    (pyg.SAGEConv, {"flow": "target_to_source", "project": True}),
]


def name_of(value):
    if isinstance(value, dict):
        return "-".join(key for key in value if key not in PNA)
    return getattr(value, "__name__", str(value))


def inputs_for(conv, options, width=16):
    if conv is EdgeConv:
        return {"x": torch.randn(12, width), "edge_index": example_graph(12, 4)}
    inputs = inputs_of(conv, torch.randn(12, width), example_graph(12, 4), options)
    if conv is pyg.GENConv and "edge_dim" in options:
        inputs["edge_attr"] = torch.randn(48, options["edge_dim"])
    return inputs


@pytest.mark.parametrize(("conv", "options"), [*FAST, *SAME_WIDTH], ids=name_of)
def test_options_of_the_fast_path(conv, options):
    torch.manual_seed(0)
    layer = grouped(conv, 2)(16, 16 if (conv, options) in SAME_WIDTH else 24, **options)
    assert isinstance(layer, EdgeConv if conv is EdgeConv else WideConv)
    inputs = inputs_for(conv, options)
    grouping.assert_apart(layer, inputs, 2)
    for training in (False, True):
        grouping.assert_same(layer.train(training), inputs)


@pytest.mark.parametrize(("conv", "options"), GENERAL, ids=name_of)
def test_what_keeps_to_the_general_path(conv, options):
    torch.manual_seed(0)
    layer = grouped(conv, 4)(16, 16, **options)
    assert isinstance(layer, GroupedConv)
    inputs = inputs_for(conv, options)
    grouping.assert_apart(layer, inputs, 4)
    grouping.assert_same(layer, inputs)


@pytest.mark.parametrize("conv", [pyg.GENConv, pyg.GINEConv])
def test_edge_features_of_a_groups_width_go_to_every_group(conv):
    torch.manual_seed(0)
    layer = grouped(conv, 4)(16, 16)
    assert isinstance(layer, WideConv)
    inputs = {"x": torch.randn(12, 16), "edge_index": example_graph(12, 4), "edge_attr": torch.randn(48, 4)}
    grouping.assert_same(layer, inputs)


@pytest.mark.parametrize(("conv", "options"), [(pyg.GATv2Conv, {"heads": 2}), (pyg.GINConv, {})], ids=name_of)
def test_both_paths_start_alike(conv, options):
    torch.manual_seed(0)
    fast = grouped(conv, 4)(16, 32, **options)
    torch.manual_seed(0)
    general = GroupedConv(conv, 4, 16, 32, **options)
    inputs = inputs_for(conv, options)
    torch.testing.assert_close(fast(**inputs), general(**inputs), rtol=1e-4, atol=1e-5)


def test_each_group_is_reset_like_a_small_layer():
    torch.manual_seed(0)
    layer, bound = grouped(pyg.GCNConv, 8)(512, 512), pyg.GCNConv(64, 64).lin.weight.abs().max()
    before = layer.layer.lin.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(layer.layer.lin.weight, before)
    assert 0.9 * bound < layer.layer.lin.weight.abs().max() < 1.1 * bound


def test_modules_among_the_options_are_each_groups_own():
    act = nn.PReLU()
    layer = grouped(pyg.ResGatedGraphConv, 2)(8, 8, act=act)
    assert len({id(act), *(id(conv.act) for conv in layer.convs)}) == 3


def test_arguments_pass_through():
    torch.manual_seed(0)
    x, edge_index = torch.randn(12, 8), torch.randint(12, (2, 40))
    weight, attributes = torch.rand(40), torch.randn(40, 3)
    gcn = grouped(pyg.GCNConv, 2)(8, 8)
    assert not torch.equal(gcn(x, edge_index, weight), gcn(x, edge_index))
    gat = grouped(pyg.GATv2Conv, 2)(8, 8, edge_dim=3)
    assert not torch.equal(gat(x, edge_index, attributes), gat(x, edge_index, 2 * attributes))
    for pair in (grouped(pyg.SAGEConv, 2)(8, 8), GroupedConv(pyg.SAGEConv, 2, 8, 8)):
        assert pair((x, x[:5]), torch.randint(5, (2, 9))).shape == (5, 8)
        assert pair((x, None), torch.randint(5, (2, 9)), size=(12, 5)).shape == (5, 8)
    general = GroupedConv(pyg.GraphConv, 2, 8, 8)
    torch.testing.assert_close(general(x, edge_index, None, (12, 12)), general(x, edge_index))
    x_0 = torch.randn(12, 8)
    split = GroupedConv(pyg.GCN2Conv, 2, 8, 8, alpha=0.5)
    torch.testing.assert_close(split(x, x_0, edge_index), split(x, edge_index=edge_index, x_0=x_0))


def test_any_callable_serves():
    layer = grouped(lambda a, b: pyg.SAGEConv(a, b, aggr="max"), 2)(8, 4)
    assert isinstance(layer, GroupedConv)
    assert layer(torch.randn(6, 8), example_graph(6, 2)).shape == (6, 4)
    phi = grouped(pyg.AntiSymmetricConv, 2)(8, 8)
    assert phi(torch.randn(6, 8), example_graph(6, 2), torch.rand(12)).shape == (6, 8)


class FourHeads(pyg.GATConv):
    def __init__(self, in_channels, out_channels, heads=4, **kwargs):
        super().__init__(in_channels, out_channels, heads=heads, **kwargs)


class CallsThemH(pyg.SAGEConv):
    def forward(self, h, edge_index):
        return super().forward(h, edge_index)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "conv",
    [
        functools.partial(pyg.GATConv, heads=2),
        functools.partial(pyg.GATConv, heads=2, concat=False),
        FourHeads,
        functools.partial(FourHeads, heads=2),
        CallsThemH,
    ],
    ids=["partial", "averaged", "subclass", "partial subclass", "other name"],
)
def test_layers_of_ones_own(conv, groups):
    torch.manual_seed(0)
    layer, x = grouped(conv, groups)(16, 16), torch.randn(6, 16)
    assert layer(x, example_graph(6, 2)).shape == (6, 16)
    if groups > 1 and conv is CallsThemH:
        assert torch.equal(layer(h=x, edge_index=example_graph(6, 2)), layer(x, example_graph(6, 2)))


def test_copies_and_pickles():
    torch.manual_seed(0)
    x, edge_index = torch.randn(6, 8), example_graph(6, 2)
    layer = grouped(pyg.GATv2Conv, 2)(8, 8)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x, edge_index), layer(x, edge_index))
        twin.reset_parameters()
        assert not torch.equal(twin(x, edge_index), layer(x, edge_index))


def test_no_dense_layer_is_ever_made():
    with torch.device("meta"):
        wide = grouped(pyg.GINConv, 32)(2**19, 2**19)  # dense, its weights would fill 2 TB
    assert sum(p.numel() for p in wide.parameters()) == 2 * 2**19 * (2**14 + 1)


def test_one_group_is_the_layer_itself():
    assert type(grouped(pyg.SAGEConv, 1)(4, 8)) is pyg.SAGEConv


def test_errors_name_value_and_remedy():
    with pytest.raises(ValueError, match="groups=3 must divide in_channels=8"):
        grouped(pyg.SAGEConv, 3)(8, 8)
    with pytest.raises(ValueError, match=r"heads=3 must divide the width of a group, 4 channels"):
        grouped(pyg.GATv2Conv, 2)(8, 8, heads=3)
    with pytest.raises(ValueError, match="leave nn out"):
        grouped(pyg.GINConv, 2)(8, 8, nn=torch.nn.Linear(8, 8))
    with pytest.raises(ValueError, match="give edge_dim, their width"):
        grouped(pyg.NNConv, 2)(8, 8)
    with pytest.raises(ValueError, match="GCN2Conv keeps its width, got in_channels=4 and out_channels=8"):
        grouped(pyg.GCN2Conv, 2)(8, 16, alpha=0.1)


@pytest.mark.parametrize("concat", [False, True])  # the general path and the fast one
@pytest.mark.parametrize("conv", [pyg.GATConv, pyg.GATv2Conv, pyg.TransformerConv], ids=name_of)
def test_attention_weights_are_refused_on_both_paths(conv, concat):
    layer, edge_index = grouped(conv, 2)(8, 8, concat=concat), knn_graph(torch.randn(4, 2), 2)
    with pytest.raises(ValueError, match="got tuple; leave out what asks for more, such as return_att"):
        layer(torch.randn(4, 8), edge_index, return_attention_weights=True)


def test_repr():
    assert repr(grouped(pyg.FAConv, 2)(8, 8)) == "GroupedConv(2 x FAConv(4, eps=0.1))"
    assert repr(grouped(pyg.TAGConv, 2)(8, 8)) == "WideConv(2 x TAGConv(4, 4, K=3))"
    maps = repr(grouped(pyg.CGConv, 2)(8, 8, dim=3).layer.lin_f)
    assert maps == "GroupedMap(19, 8, groups=2, bias=True, in_parts=2, shared=3)"
