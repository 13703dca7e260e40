"""Every layer of the installed PyG, found by inspection, against the definition of a grouped layer."""

import grouping
import pytest
import torch
from torch_geometric.nn import ARMAConv, ChebConv, GatedGraphConv, GCN2Conv

from mgic_geo import grouped
from mgic_geo.benchmark.pyg_layers import example_graph, inputs_of, layer_classes, options_of, reason_against
from mgic_geo.graph.grouped import GroupedConv
from mgic_geo.graph.grouped.fast import FAST, WideConv

GROUPS, NODES = 4, 12
LAYERS = [conv for conv in layer_classes() if reason_against(conv) is None]


@pytest.mark.parametrize("conv", LAYERS, ids=lambda conv: conv.__name__)
def test_is_small_layers_side_by_side(conv):
    torch.manual_seed(0)
    options = options_of(conv)
    inputs = inputs_of(conv, torch.randn(NODES, 16), example_graph(NODES, 4), options)
    try:
        layer = grouped(conv, GROUPS)(16, 16, **options)
        layer.eval()(**inputs)
    except ImportError as error:
        pytest.skip(str(error))
    assert isinstance(layer, WideConv if conv in FAST else GroupedConv)
    grouping.assert_apart(layer, inputs, GROUPS)
    for training in (False, True):
        grouping.assert_same(layer.train(training), inputs)


@pytest.mark.parametrize("nodes", [0, 5])
@pytest.mark.parametrize("conv", FAST, ids=lambda conv: conv.__name__)
def test_graphs_without_edges_or_nodes(conv, nodes):
    torch.manual_seed(0)
    options, no_edges = options_of(conv), torch.zeros(2, 0, dtype=torch.long)
    inputs = inputs_of(conv, torch.randn(nodes, 16), no_edges, options)
    layer = grouped(conv, GROUPS)(16, 16, **options)
    assert isinstance(layer, WideConv)
    if conv is ChebConv and not nodes:  # PyG's own looks for the largest of no edge weights
        for refuses in (layer, layer.split()[0]):
            with pytest.raises(RuntimeError, match="max"):
                refuses(**inputs)
        return
    for training in (False, True):
        grouping.assert_same(layer.train(training), inputs)


def test_enough_layers_take_the_fast_path():
    assert len([conv for conv in LAYERS if conv in FAST]) >= 24


def test_what_is_left_out_takes_no_widths():
    left_out = {conv.__name__: reason_against(conv) for conv in layer_classes() if conv not in LAYERS}
    assert left_out == {}


@pytest.mark.parametrize("conv", [GatedGraphConv, GCN2Conv, ARMAConv], ids=lambda conv: conv.__name__)
def test_layers_with_weights_of_their_own_under_autocast(conv):
    torch.manual_seed(0)
    options, x, edges = options_of(conv), torch.randn(NODES, 16), example_graph(NODES, 4)
    layer, inputs = grouped(conv, GROUPS)(16, 16, **options), inputs_of(conv, x, edges, options)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(**inputs)
    torch.testing.assert_close(half.float(), layer(**inputs), rtol=0.1, atol=0.1)
