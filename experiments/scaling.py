"""Measure section 4.4's claim: with its width a MGIC block grows linearly, a dense one quadratically.

images: a residual block of two 3×3 convolutions. graphs: SAGEConv and EdgeConv on a random graph, with
normalisation, activation and residual. Each is counted and timed (forward and backward) at every width, as a
MGIC block of fixed group and coarsest size and as the dense block. Prints the fitted exponents, and writes
scaling.md, scaling.json and scaling.png.

    python experiments/scaling.py --output runs/scaling
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mgic_geo import BasicBlock2d, MGICBasicBlock2d, MGICGraphConv, scaling
from mgic_geo.benchmark.pyg_layers import example_graph
from mgic_geo.memory import keep_memory
from mgic_geo.paper.scaling_plot import ScalingCurve, plot_scaling
from mgic_geo.training.claims import claim_folder
from mgic_geo.training.command_line import command_line
from mgic_geo.training.config import Flags, flag
from mgic_geo.training.errors import blaming, plain_errors, write_text

Inputs = Callable[[int], tuple[Tensor, ...]]


@dataclass(kw_only=True)
class Config(Flags):
    """What to measure."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048, 4096)
    """Channels of the blocks; all lie in memory together, dense ones of 4,096 channels with 1.2 GB of weights
    and as much of gradients."""
    parts: tuple[Literal["images", "graphs"], ...] = ("images", "graphs")
    """Which blocks."""
    rounds: int = 5
    """Timings of each width; the widths take turns."""
    threads: int | None = None
    """Threads of torch; as many as it takes by itself, if not given."""
    clock: Literal["wall", "cpu"] = "wall"
    """Time that passes, or time of the processor, which on one thread leaves other processes out."""
    image_sizes: tuple[int, int] = (32, 64)
    """Group size and coarsest size of the image block."""
    graph_sizes: tuple[int, int] = (16, 32)
    """Group size and coarsest size of the graph blocks."""
    images: int = 4
    """Images in a batch, each of 8×8 pixels."""
    nodes: int = 1024
    """Nodes of the graph, each with ten neighbours."""
    output: Path = Path("runs/scaling")
    """Folder for the table, the figures and the plot."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems() + self.at_least(threads=1, rounds=1, images=1, nodes=1)
        if not self.parts:
            found.append("--parts is empty; give images, graphs or both")
        if len(set(self.widths)) < 2 or min(self.widths) < 1:
            shown = " ".join(map(str, self.widths)) or "empty"
            found.append(f"--widths is {shown}; give two or more different ones, of 1 or more")
        for name in ("image_sizes", "graph_sizes"):
            if min(sizes := getattr(self, name)) < 1:
                found.append(f"{flag(name)} is {sizes[0]} {sizes[1]}; give 1 or more each")
        return found


def blocks(config: Config) -> dict[str, tuple[Inputs, dict[str, Callable[[int], nn.Module]]]]:
    """By title: the inputs of a width, and what makes the MGIC and the dense block of it."""
    group, coarse = config.image_sizes
    cases: dict[str, tuple[Inputs, dict[str, Callable[[int], nn.Module]]]] = {}
    if "images" in config.parts:
        cases["residual block, 3×3"] = (
            lambda width: (torch.randn(config.images, width, 8, 8),),
            {
                "MGIC": lambda w: MGICBasicBlock2d(w, w, group_size=group, coarse_size=coarse),
                "dense": lambda w: BasicBlock2d(w, w),
            },
        )
    if "graphs" in config.parts:
        edge_index = example_graph(config.nodes, 10)
        for conv in ("SAGEConv", "EdgeConv"):
            cases[conv] = (
                lambda width: (torch.randn(config.nodes, width), edge_index),
                {
                    "MGIC": graph_block(conv, *config.graph_sizes),
                    # One level, the coarsest: the same block without a hierarchy.
                    "dense": graph_block(conv, 1, max(config.widths)),
                },
            )
    return cases


def graph_block(conv: str, group_size: int, coarse_size: int) -> Callable[[int], nn.Module]:
    """What makes the block of a width."""
    return lambda w: MGICGraphConv(w, w, conv=conv, group_size=group_size, coarse_size=coarse_size)


def table(curves: Sequence[ScalingCurve]) -> str:
    """The exponents of all curves as Markdown."""
    lines = ["| block | kind | parameters | multiply-adds | time |", "|---|---|---:|---:|---:|"]
    for curve in curves:
        figures = " | ".join(f"{value:.2f}" for value in curve.found.exponents if value is not None)
        lines.append(f"| {curve.block} | {curve.kind} | {figures} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script with the arguments ``argv``, or those of the command line."""
    config = command_line(Config, argv, __doc__, renamed={"--processor-time": "--clock=cpu"})
    with plain_errors():
        config.validate()
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        claim_folder(config.output, config, "scaling.json")
        torch.manual_seed(0)
        keep_memory()  # as the training scripts do
        clock = time.process_time if config.clock == "cpu" else time.perf_counter
        curves: list[ScalingCurve] = []
        details = []
        for title, (inputs, kinds) in blocks(config).items():
            for kind, build in kinds.items():
                with blaming(f"{title}, {kind}"):
                    found = scaling(build, config.widths, inputs, rounds=config.rounds, clock=clock)
                curves.append(ScalingCurve(title, kind, found))
                details.append(f"{title}, {kind}\n\n{found}")
                print(f"{title}, {kind}: {found!r}", flush=True)
        sizes = f"(group size, coarsest size): images {config.image_sizes}, graphs {config.graph_sizes}"
        threads = torch.get_num_threads()
        text = f"Exponents over {min(config.widths)} to {max(config.widths)} channels, {threads} "
        text += f"thread{'s' if threads > 1 else ''}; {sizes}\n\n{table(curves)}"
        print(f"\n{text}")
        write_text(config.output / "scaling.md", "\n\n".join([text, *details]) + "\n")
        rows: list[Any] = [
            {"block": c.block, "kind": c.kind, "rows": [row._asdict() for row in c.found.rows]}
            for c in curves
        ]
        write_text(config.output / "scaling.json", json.dumps(rows, indent=1) + "\n")
        plot_scaling(config.output / "scaling.png", curves)


if __name__ == "__main__":
    main()
