"""Layers on both paths, and beside PyG's ungrouped ones."""

from dataclasses import replace

import pytest
import torch
from torch_geometric.nn import GCNConv

from mgic_geo.benchmark import layers
from mgic_geo.benchmark.layers import LayerRow, compare_layers, compare_pyg, layer_step, layer_table
from mgic_geo.graph import grouped


def test_layers(tiny):
    (report,) = compare_layers(replace(tiny, layers=("GCNConv", "GATConv"), new_graphs=True))
    assert [row["layer"] for row in report.rows] == ["GATConv", "GCNConv"]
    for row in report.rows:
        assert row["ratio"] == pytest.approx(row["general_ms"] / row["fast_ms"])


@pytest.mark.parametrize(
    ("threads", "clock", "kind"), [(1, "auto", "cpu"), (2, "auto", "wall"), (1, "wall", "wall")]
)
def test_clock(tiny, monkeypatch, threads, clock, kind):
    """Processor time where one thread does all the work and no clock is asked for."""
    seen = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(layers, "clock_of", lambda device, kind: seen.append(kind))
    monkeypatch.setattr(layers, "interleave", lambda steps, *_: FAKE)
    (report,) = compare_layers(replace(tiny, layers=("GCNConv",), clock=clock))
    assert seen == [kind]
    assert report.rows[0]["ratio"] == 4


class Fake:
    def __init__(self, median):
        self.median = median


FAKE = {"fast": Fake(0.5), "general": Fake(2.0)}


def test_graphs_take_turns():
    seen = []
    layer = grouped(GCNConv, 2)(4, 4)
    layer.register_forward_pre_hook(
        lambda module, args, named: seen.append(named["edge_index"]), with_kwargs=True
    )
    graphs = [torch.tensor([[0, 1], [1, 0]]), torch.tensor([[1, 1], [0, 1]])]
    step = layer_step(layer, {"x": torch.randn(2, 4), "edge_index": graphs[0]}, graphs)
    step(), step(), step()
    assert [graph is graphs[i] for graph, i in zip(seen[1:], (0, 1, 0), strict=True)] == [True] * 3


def test_table():
    text = layer_table([LayerRow("A", 1.0, 2.0, 2.0), LayerRow("B", 1.0, 8.0, 8.0)])
    assert text.splitlines()[2:] == [
        "| A | 1.0 | 2.0 | 2.0 |",
        "| B | 1.0 | 8.0 | 8.0 |",
        "| geometric mean | | | 4.0 |",
    ]
    assert len(layer_table([]).splitlines()) == 2


def test_pyg(tiny):
    reports = list(compare_pyg(tiny))
    assert [r.title.split(",")[0] for r in reports] == ["SAGEConv", "GCNConv", "GATConv"]
    for report in reports:
        assert [row["model"] for row in report.rows] == ["MGIC (16, 32)", "PyG, ungrouped"]
        assert all(row["times_floor"] > 0 for row in report.rows)
