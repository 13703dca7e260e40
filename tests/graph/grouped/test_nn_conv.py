"""``NNConv`` in groups on graphs of uneven degrees."""

import grouping
import pytest
import torch
import torch_geometric.nn as pyg

from mgic_geo import grouped
from mgic_geo.graph.grouped import nn_conv as module


@pytest.mark.parametrize("aggr", ["add", "mean", "max"])
@pytest.mark.parametrize("most", [2, 1024])
def test_uneven_degrees(aggr, most, monkeypatch):
    monkeypatch.setattr(module, "_TARGETS", most)
    torch.manual_seed(0)
    target = torch.randint(12, (60,)).pow(2) % 11  # from none to many edges
    inputs = {
        "x": torch.randn(12, 8),
        "edge_index": torch.stack([torch.randint(12, (60,)), target]),
        "edge_attr": torch.randn(60, 3),
    }
    grouping.assert_same(grouped(pyg.NNConv, 2)(8, 12, edge_dim=3, aggr=aggr), inputs)
