"""k-NN, EdgeConv and the point-cloud networks, each beside what computes the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mgic_geo.benchmark.comparison import Entry, compare, cuda_entries
from mgic_geo.benchmark.config import Config
from mgic_geo.benchmark.floor import work_of
from mgic_geo.benchmark.peers import (
    PlainDGCNN,
    PlainEdgeConv,
    PyGDGCNN,
    cluster_graph,
    cluster_runs,
    pyg_edge_conv,
)
from mgic_geo.benchmark.report import Report
from mgic_geo.benchmark.steps import clouds, passes, training_step
from mgic_geo.graph import EdgeConv, knn
from mgic_geo.models import DGCNN
from mgic_geo.timing import Step

__all__ = ["DENSE", "MGIC", "NETWORKS", "PLAIN", "PYG", "WIDTHS", "compare_edge_conv", "compare_knn"]
__all__ += ["compare_networks", "compare_wide"]

WIDTHS = 64, 64, 128, 256
MGIC, DENSE, PLAIN, PYG = "MGIC-DGCNN (16, 32)", "dense DGCNN", "plain port of DGCNN", "PyG + torch-cluster"

NETWORKS: dict[str, Callable[[int, Sequence[int]], nn.Module]] = {
    MGIC: lambda k, widths: DGCNN(conv="mgic", k=k, widths=widths, group_size=16, coarse_size=32),
    DENSE: lambda k, widths: DGCNN(conv="edge", k=k, widths=widths),
    PLAIN: lambda k, widths: PlainDGCNN(k, widths),
    PYG: lambda k, widths: PyGDGCNN(k, widths),
}
"""What makes each network from k and the widths."""


class _Neighbors(nn.Module):
    """k-NN as a module, so that its work can be counted."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        return knn(x, self.k)


def compare_knn(config: Config) -> Iterator[Report]:
    """k-NN of points in space, and of normal features, beside torch-cluster's."""
    for dimensions, bar in ((3, 1), (64, 10), (128, 10)):
        shape = config.batch_size, config.points, dimensions
        x = torch.randn(*shape, device=config.device)
        if dimensions == 3:
            x = clouds(config.batch_size, config.points, config.device)
        ours = _Neighbors(config.k)
        work = work_of(ours, x, backward=False)
        entries = [Entry("mgic_geo.knn", partial(ours, x), work)]
        if cluster_runs(config.device):
            entries.append(Entry("torch-cluster", partial(cluster_graph, x, config.k), work, bar=bar))
        title = f"k-NN, {config.batch_size} × {config.points:,}, {dimensions} dimensions, k = {config.k}"
        yield compare(title, entries, config)


def compare_edge_conv(config: Config) -> Iterator[Report]:
    """One dense EdgeConv on a ready graph, given as PyG's edge index or as a table of neighbours."""
    x = torch.randn(config.batch_size, config.points, 64, device=config.device)
    table = knn(x, config.k)
    offset = config.points * torch.arange(config.batch_size, device=x.device).view(-1, 1, 1)
    source = (table + offset).flatten()
    target = torch.arange(source.numel() // config.k, device=x.device).repeat_interleave(config.k)
    edge_index, flat = torch.stack([source, target]), x.flatten(0, 1)

    def ours() -> nn.Module:
        return EdgeConv(64, 128, act=nn.LeakyReLU(0.2)).to(config.device)

    work = work_of(ours(), flat.requires_grad_(), edge_index)
    pyg = pyg_edge_conv(64, 128).to(config.device)
    plain = PlainEdgeConv(64, 128).to(config.device)
    entries = [
        Entry("EdgeConv", passes(ours(), flat, edge_index), work),
        Entry("EdgeConv, table of neighbours", passes(ours(), x, table), work),
        Entry("PyG EdgeConv", passes(pyg, flat, edge_index), work, bar=10),
        Entry("plain edge convolution", passes(plain, x, table), work),
    ]
    shape = f"{config.batch_size} × {config.points:,}, k = {config.k}"
    yield compare(f"EdgeConv 64 → 128, forward and backward, {shape}", entries, config)


def compare_networks(config: Config) -> Iterator[Report]:
    """A training step of the networks of the same widths."""
    bars = {DENSE: 1.2, PLAIN: 7, PYG: 10}
    names = [MGIC, DENSE, PLAIN, *([PYG] if cluster_runs(config.device) else [])]
    yield _compare_networks(config, names, WIDTHS, bars, floor_bar=5)


def compare_wide(config: Config) -> Iterator[Report]:
    """The same, many times as wide, where the hierarchy saves the most."""
    widths = [config.wide * width for width in WIDTHS]
    yield _compare_networks(config, [MGIC, DENSE], widths, {DENSE: 3})


def _compare_networks(
    config: Config,
    names: Sequence[str],
    widths: Sequence[int],
    bars: dict[str, float],
    floor_bar: float | None = None,
) -> Report:
    points = clouds(config.batch_size, config.points, config.device)

    def made(name: str) -> nn.Module:
        return NETWORKS[name](config.k, widths).to(config.device)

    def step(name: str, **kind: bool) -> Step:
        return training_step(made(name), points, **kind)

    # The peers compute what our dense network does, so the least work is the same.
    work = {name: work_of(made(name), points) for name in (MGIC, DENSE)}
    entries = []
    for name in names:
        faster = DENSE if name in (PLAIN, PYG) else None
        least = floor_bar if name == MGIC else None
        entries.append(Entry(name, step(name), work.get(name, work[DENSE]), faster, bars.get(name), least))
    if config.device == "cuda":
        entries += cuda_entries(step, work)
    shape = f"{config.batch_size} × {config.points:,}, k = {config.k}"
    return compare(f"Training step, widths {'-'.join(map(str, widths))}, {shape}", entries, config)
