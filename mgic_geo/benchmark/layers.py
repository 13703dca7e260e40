"""PyG's layers: in groups, on the fast path and as small layers; in a hierarchy, beside the plain layer."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from mgic_geo.benchmark.comparison import Entry, compare
from mgic_geo.benchmark.config import Config
from mgic_geo.benchmark.floor import work_of
from mgic_geo.benchmark.pyg_layers import example_graph, inputs_of, options_of
from mgic_geo.benchmark.report import Report
from mgic_geo.benchmark.steps import passes
from mgic_geo.graph import MGICGraphConv
from mgic_geo.graph.grouped import GroupedConv, grouped
from mgic_geo.graph.grouped.fast import FAST
from mgic_geo.text_table import markdown
from mgic_geo.timing import Clock, Step, clock_of, interleave

__all__ = ["LayerRow", "compare_layers", "compare_pyg"]


@dataclass(frozen=True)
class LayerRow:
    """Median times of a layer on its two paths in milliseconds, forward and backward, and their ratio."""

    layer: str
    fast_ms: float
    general_ms: float
    ratio: float


class _PlainBlock(nn.Module):
    """An ungrouped layer with normalisation, activation and residual, as PyG's users write it.

    A level's block, ``GraphBlock``, computes the same, but on the CPU by our compiled step.
    """

    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = conv, nn.BatchNorm1d(channels)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return x + self.norm(self.conv(x, edge_index)).relu()


def compare_pyg(config: Config) -> Iterator[Report]:
    """MGICGraphConv beside PyG's own layer of full width, ungrouped, on a random graph."""
    edge_index = example_graph(config.points, config.k).to(config.device)
    for name in ("SAGEConv", "GCNConv", "GATConv"):
        for width in config.channels:
            x = torch.randn(config.points, width, device=config.device).requires_grad_()
            plain = _PlainBlock(getattr(pyg, name)(width, width), width).to(config.device)
            ours = MGICGraphConv(width, width, conv=name, group_size=16, coarse_size=32).to(config.device)
            entries = [
                Entry("MGIC (16, 32)", passes(ours, x, edge_index), work_of(ours, x, edge_index)),
                Entry("PyG, ungrouped", passes(plain, x, edge_index), work_of(plain, x, edge_index)),
            ]
            title = f"{name}, {width:,} channels, {config.points:,} nodes of degree {config.k}"
            yield compare(title, entries, config)


def compare_layers(config: Config) -> Iterator[Report]:
    """Every layer of the table in 16 groups of 16 channels, on both paths, which take turns."""
    x = torch.randn(config.points, 256, device=config.device)
    graphs = [
        example_graph(config.points, config.k, seed).to(config.device)
        for seed in range(16 if config.new_graphs else 1)
    ]
    # Others on the machine make no difference to the time of one thread, as a process counts it.
    alone = config.clock == "auto" and torch.get_num_threads() == 1
    clock = clock_of(config.device, "cpu" if alone else config.clock_kind)
    rows = [
        _layer_row(conv, x, graphs, config, clock)
        for conv in FAST
        if not config.layers or conv.__name__ in config.layers  # type: ignore[attr-defined]
    ]
    yield Report(
        f"16 groups of 16 channels, {config.points} nodes of degree {config.k}",
        [asdict(row) for row in rows],
        layer_table(rows),
    )


def _layer_row(conv: Any, x: Tensor, graphs: Sequence[Tensor], config: Config, clock: Clock) -> LayerRow:
    options = options_of(conv)
    inputs = inputs_of(conv, x, graphs[0], options)
    inputs = {name: value.to(config.device) for name, value in inputs.items()}
    paths = {
        "fast": grouped(conv, 16)(256, 256, **options),
        "general": GroupedConv(conv, 16, 256, 256, **options),
    }
    steps = {path: layer_step(layer.to(config.device), inputs, graphs) for path, layer in paths.items()}
    times = interleave(steps, config.rounds, clock, config.limit)
    fast, general = (1e3 * times[path].median for path in paths)
    return LayerRow(conv.__name__, fast, general, general / fast)


def layer_step(layer: nn.Module, inputs: dict[str, Tensor], graphs: Sequence[Tensor]) -> Step:
    """One forward and backward pass, to the weights and to x; the graphs take turns."""
    inputs = {**inputs, "x": inputs["x"].clone().requires_grad_()}
    graph = next(name for name in inputs if name in ("edge_index", "hyperedge_index"))
    upstream, turns = torch.randn_like(layer(**inputs)), itertools.cycle(graphs)

    def step() -> None:
        layer.zero_grad()
        inputs["x"].grad, inputs[graph] = None, next(turns)
        layer(**inputs).backward(upstream)

    return step


def layer_table(rows: Sequence[LayerRow]) -> str:
    """The table of layers, and the geometric mean of the ratios."""
    lines = [[r.layer, *(f"{figure:.1f}" for figure in (r.fast_ms, r.general_ms, r.ratio))] for r in rows]
    text = markdown(["layer", "fast ms", "general ms", "ratio"], lines)
    if rows:
        text += f"\n| geometric mean | | | {statistics.geometric_mean(r.ratio for r in rows):.1f} |"
    return text
