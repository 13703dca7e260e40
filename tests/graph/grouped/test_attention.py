"""Attention in groups: pairs, scores that lie far apart, and nodes without edges."""

import grouping
import pytest
import torch
import torch_geometric.nn as pyg

from mgic_geo import grouped
from mgic_geo.benchmark.pyg_layers import example_graph

INDEX = torch.stack(
    [torch.randint(9, (30,), generator=torch.Generator().manual_seed(0)), torch.arange(30) % 5]
)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_vector_attention_over_near_and_far_scores(scale):
    torch.manual_seed(0)
    layer = grouped(pyg.PointTransformerConv, 2)(8, 8, add_self_loops=False).double()
    x, pos = torch.randn(9, 8, dtype=torch.double), torch.randn(9, 3, dtype=torch.double)
    inputs = {"x": scale * x, "pos": pos, "edge_index": INDEX}
    grouping.assert_same(layer, inputs)  # nodes 5 to 8 have no edge


@pytest.mark.parametrize("conv", [pyg.GATConv, pyg.GATv2Conv, pyg.TransformerConv, pyg.PointTransformerConv])
def test_pairs(conv):
    torch.manual_seed(0)
    options = {} if conv is pyg.PointTransformerConv else {"heads": 2}
    if conv in (pyg.GATConv, pyg.GATv2Conv):
        options["edge_dim"] = 3
    layer, x = grouped(conv, 2)(8, 8, **options), (torch.randn(9, 8), torch.randn(5, 8))
    small = layer.split()
    more = {"edge_attr": torch.randn(30, 3)} if "edge_dim" in options else {}
    if conv is pyg.PointTransformerConv:
        more = {"pos": (torch.randn(9, 3), torch.randn(5, 3))}
    parts = [
        part((x[0].chunk(2, 1)[g], x[1].chunk(2, 1)[g]), edge_index=INDEX, **more)
        for g, part in enumerate(small)
    ]
    grouping.assert_near(layer(x, edge_index=INDEX, **more), torch.cat(parts, 1))


def test_attention_weights_are_pygs():
    torch.manual_seed(0)
    layer = grouped(pyg.GATv2Conv, 2)(8, 8, heads=2)
    x, edge_index = torch.randn(9, 8), example_graph(9, 3)
    _, (_, alpha) = layer.layer(x, edge_index, return_attention_weights=True)
    parts = [
        part(x.chunk(2, 1)[g], edge_index, return_attention_weights=True)[1][1]
        for g, part in enumerate(layer.split())
    ]
    torch.testing.assert_close(alpha, torch.cat(parts, 1))
