"""All parts of the benchmark by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mgic_geo.benchmark.config import Config, Part
from mgic_geo.benchmark.growth import compare_growth
from mgic_geo.benchmark.images import compare_blocks, compare_images
from mgic_geo.benchmark.layers import compare_layers, compare_pyg
from mgic_geo.benchmark.peaks import compare_memory
from mgic_geo.benchmark.peers import cluster_runs, installed
from mgic_geo.benchmark.points import compare_edge_conv, compare_knn, compare_networks, compare_wide
from mgic_geo.benchmark.report import Report

__all__ = ["PARTS", "missing"]


def _compare_loading(config: Config) -> Iterator[Report]:
    # What trains takes a second to import, which processes that measure memory would spend, too.
    from mgic_geo.benchmark.loading import compare_loading

    return compare_loading(config)


PARTS: dict[Part, Callable[[Config], Iterator[Report]]] = {
    "knn": compare_knn,
    "edge_conv": compare_edge_conv,
    "points": compare_networks,
    "wide": compare_wide,
    "blocks": compare_blocks,
    "images": compare_images,
    "pyg": compare_pyg,
    "growth": compare_growth,
    "memory": compare_memory,
    "loading": _compare_loading,
    "layers": compare_layers,
}
"""By name: what measures it and gives its tables one by one."""


def missing(device: str) -> list[str]:
    """What to say of peers that are not there, and so not measured."""
    lines = []
    if not cluster_runs(device):
        why = "does not run here" if installed("torch_cluster") else "is not installed"
        lines.append(f"torch-cluster {why}: its rows are left out (extra: cluster)")
    lines += [
        f"{package} is not installed: its block is left out (extra: {extra})"
        for package, extra in (("torchvision", "train"), ("timm", "dev"))
        if not installed(package)
    ]
    return lines
