"""GENConv, GINEConv and FiLMConv in groups beyond what the survey of layers tries."""

import grouping
import pytest
import torch
import torch_geometric.nn as pyg

from mgic_geo import grouped
from mgic_geo.benchmark.pyg_layers import example_graph

CASES = [
    (pyg.GENConv, {"edge_dim": 3, "bias": True}),
    (pyg.GENConv, {"edge_dim": 3, "aggr": "softmax", "t": 0.5}),
    (pyg.GENConv, {"edge_dim": 3, "aggr": "max"}),
    (pyg.GINEConv, {"edge_dim": 3, "aggr": "mean"}),
    (pyg.GINEConv, {"edge_dim": 3, "aggr": "std"}),
    (pyg.FiLMConv, {"act": None, "aggr": "max"}),
]


@pytest.mark.parametrize(("conv", "options"), CASES)
def test_is_small_layers_side_by_side(conv, options):
    torch.manual_seed(0)
    inputs = {"x": torch.randn(14, 8), "edge_index": example_graph(12, 3)}  # two nodes without edges
    if "edge_dim" in options:
        inputs["edge_attr"] = torch.randn(36, 3)
    grouping.assert_same(grouped(conv, 2)(8, 8, **options), inputs)
