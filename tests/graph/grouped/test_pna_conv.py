"""``PNAConv`` in groups with towers of one map, which an edge only shifts, and of more."""

import grouping
import pytest
import torch
import torch_geometric.nn as pyg

from mgic_geo import grouped
from mgic_geo.benchmark.pyg_layers import example_graph


@pytest.mark.parametrize("pre_layers", [1, 2])
@pytest.mark.parametrize("edge_dim", [None, 3])
def test_is_small_layers_side_by_side(pre_layers, edge_dim):
    torch.manual_seed(0)
    options = {
        "aggregators": ["sum", "min", "max", "std"],
        "scalers": ["identity", "attenuation"],
        "deg": torch.tensor([2, 0, 0, 12]),
        "towers": 2,
        "pre_layers": pre_layers,
        "edge_dim": edge_dim,
    }
    inputs = {"x": torch.randn(14, 8), "edge_index": example_graph(12, 3)}
    if edge_dim:
        inputs["edge_attr"] = torch.randn(36, 3)
    grouping.assert_same(grouped(pyg.PNAConv, 2)(8, 8, **options), inputs)
