"""The fast path with inputs that do not fit, traces, checkpoints, and values that are no numbers."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch_geometric import nn as pyg

from mgic_geo.benchmark.pyg_layers import example_graph, inputs_of, options_of
from mgic_geo.graph.grouped import grouped
from mgic_geo.graph.grouped.fast import FAST, build_wide

GRAPH = example_graph(20, 4)
READ_EDGES = [
    conv for conv in FAST if "edge_attr" in inputs_of(conv, torch.zeros(20, 64), GRAPH, options_of(conv))
]


def layer_and_inputs(conv, width=64, groups=4):
    torch.manual_seed(0)
    options = options_of(conv)
    x = torch.randn(20, width)
    return grouped(conv, groups)(width, width, **options), inputs_of(conv, x, GRAPH, options)


@pytest.mark.parametrize(("dropout", "fast"), [(0.0, True), (0.5, False)])
def test_edges_are_dropped_for_each_group_anew(dropout, fast):
    wide = build_wide(pyg.APPNP, 2, 8, 8, {"K": 2, "alpha": 0.1, "dropout": dropout})
    assert (wide is not None) == fast


@pytest.mark.parametrize("conv", READ_EDGES, ids=lambda conv: conv.__name__)
@pytest.mark.parametrize("shape", [(79, 3), (81, 3), (80, 2), (80, 5)], ids=str)
def test_edge_features_that_do_not_fit(conv, shape):
    layer, inputs = layer_and_inputs(conv)
    layer(**inputs)
    with pytest.raises((RuntimeError, ValueError, AssertionError, IndexError)):
        layer(**{**inputs, "edge_attr": torch.randn(*shape)})


@pytest.mark.parametrize("conv", [pyg.FiLMConv, pyg.EdgeConv, pyg.GATv2Conv, pyg.PNAConv], ids=str)
def test_checkpointed(conv):
    layer, inputs = layer_and_inputs(conv)
    inputs["x"].requires_grad_()
    plain = torch.autograd.grad(layer(**inputs).square().sum(), inputs["x"])[0]
    out = checkpoint(lambda **given: layer(**given), use_reentrant=False, **inputs)
    torch.testing.assert_close(torch.autograd.grad(out.square().sum(), inputs["x"])[0], plain)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.parametrize("conv", [pyg.FiLMConv, pyg.SAGEConv, pyg.EdgeConv], ids=str)
def test_traced(conv):
    layer, inputs = layer_and_inputs(conv)
    x, other = inputs["x"], example_graph(20, 3, seed=1)
    traced = torch.jit.trace(layer.eval(), (x, GRAPH), check_trace=False)
    for graph in (GRAPH, other):
        torch.testing.assert_close(traced(x, graph), layer(x, graph))


@pytest.mark.parametrize("conv", [pyg.EdgeConv, pyg.PointNetConv, pyg.FiLMConv, pyg.GENConv], ids=str)
@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=str)
def test_what_is_no_number_stays_none(conv, order):
    layer, inputs = layer_and_inputs(conv)
    inputs["x"][1] = torch.nan
    inputs["edge_index"] = torch.tensor([order, [2, 2]])
    if "edge_attr" in inputs:
        inputs["edge_attr"] = inputs["edge_attr"][:2]
    assert layer(**inputs)[2].isnan().all()


@pytest.mark.parametrize("conv", [pyg.GraphConv, pyg.SAGEConv, pyg.GINConv, pyg.FiLMConv], ids=str)
def test_a_matrix_out_of_order_is_read_and_left_alone(conv):
    layer, inputs = layer_and_inputs(conv)
    edges = GRAPH.unique(dim=1).flip(1)  # of a repeated edge a matrix has the sum
    values = torch.ones(edges.size(1), requires_grad=True)
    matrix = torch.sparse_coo_tensor(edges.flip(0), values, (20, 20), check_invariants=False)
    out = layer(inputs["x"], matrix)
    torch.testing.assert_close(out, layer(inputs["x"], edges), rtol=1e-4, atol=1e-5)
    out.square().sum().backward()
    assert not matrix.is_coalesced()
    assert (values.grad is None) == (conv is pyg.FiLMConv)  # which reads no weights
