"""What the benchmark measures, at which sizes, by which clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch

from mgic_geo.benchmark.floor import Rates, measure_rates
from mgic_geo.graph.grouped.fast import FAST
from mgic_geo.timing import Clock, clock_of

__all__ = ["Config", "Part"]

Part = Literal[
    "knn", "edge_conv", "points", "wide", "blocks", "images", "pyg", "growth", "memory", "loading", "layers"
]  # fmt: skip


@dataclass
class Config:
    """What to measure."""

    parts: tuple[Part, ...] = (
        "knn", "edge_conv", "points", "wide", "blocks", "images", "pyg", "growth", "memory", "loading"
    )  # fmt: skip
    """Which comparisons."""
    quick: bool = False
    """Small batches, few rounds, no largest sizes: under two minutes; the bars are not for these sizes."""
    batch_size: int = 16
    """Clouds in a step, and images through a residual block."""
    points: int = 1024
    """Points in a cloud, or nodes of the layers' graph."""
    k: int = 10
    """Neighbours of a point, itself counted, or degree of the layers' graph."""
    wide: int = 4
    """The wide networks' widths, as a multiple of 64-64-128-256."""
    channels: tuple[int, ...] = (256, 1024)
    """Widths of the residual blocks."""
    pixels: int = 16
    """Height and width of the residual blocks' images."""
    images: int = 64
    """Images in a step of the image networks."""
    cloud_sizes: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    """Points of a cloud over which the step grows, in batches of four."""
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Clouds of 256 points over which the step grows."""
    layers: tuple[str, ...] = ()
    """Names of the layers; all that have a fast path, if none."""
    new_graphs: bool = False
    """Give the layers another graph at every step, so that nothing known of one serves twice."""
    rounds: int = 15
    """Timed steps of each model; they take turns."""
    keep_memory: bool = True
    """Call ``mgic_geo.keep_memory`` ahead of all, as the training scripts do."""
    limit: float = 60
    """Seconds of a comparison after which no round begins; three run all the same."""
    clock: Literal["auto", "wall", "cpu"] = "auto"
    """Time that passes, or time of the processor, summed over threads; auto takes the former, but the latter
    for layers on one thread. On CUDA always its events."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure; auto takes CUDA if it is there."""
    output: Path | None = None
    """Write the figures to this JSON file, too."""

    def resolved(self) -> Config:
        """The same with the device found and, if quick, the smaller sizes.

        Raises:
            ValueError: If a value cannot be used.
        """
        if found := self.problems():
            raise ValueError("; ".join(found))
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if not self.quick:
            return replace(self, device=device)
        return replace(
            self,
            device=device,
            batch_size=min(self.batch_size, 4),
            images=min(self.images, 16),
            cloud_sizes=tuple(n for n in self.cloud_sizes if n <= 1024),
            batch_sizes=tuple(n for n in self.batch_sizes if n <= 16),
            rounds=min(self.rounds, 5),
            limit=min(self.limit, 8),
        )

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = [] if self.parts else [f"--parts is empty; give some of {', '.join(get_args(Part))}"]
        for name in ("batch_size", "points", "k", "wide", "pixels", "images", "rounds"):
            if (size := getattr(self, name)) < 1:
                found.append(f"{_flag(name)} is {size}; give 1 or more")
        for name in ("channels", "cloud_sizes", "batch_sizes"):
            sizes = getattr(self, name)
            if not sizes or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
                given = " ".join(map(str, sizes)) or "empty"
                found.append(f"{_flag(name)} is {given}; give ascending numbers from 1 on")
        smallest = min((self.points, *self.cloud_sizes))
        if self.k > smallest >= 1 and "layers" not in self.parts:
            found.append(f"--k is {self.k}, but there are clouds of {smallest} points; give at most that")
        known = [conv.__name__ for conv in FAST]  # type: ignore[attr-defined]
        if unknown := sorted(set(self.layers) - set(known)):
            found.append(
                f"--layers: no fast path for {', '.join(unknown)}; give some of {', '.join(sorted(known))}"
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            found.append("--device cuda, but PyTorch sees no GPU here; use --device cpu")
        return found

    @property
    def clock_kind(self) -> str:
        """The clock of networks and blocks by name."""
        return "wall" if self.clock == "auto" else self.clock

    @property
    def timed(self) -> Clock:
        """The clock of networks and blocks."""
        return clock_of(self.device, self.clock_kind)

    def rates(self, dtype: torch.dtype = torch.float32) -> Rates:
        """What the machine reaches, by the same clock."""
        return measure_rates(self.device, self.clock_kind, dtype)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
