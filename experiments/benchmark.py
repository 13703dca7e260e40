"""Time this package's layers and networks beside their peers, interleaved in one process.

    python experiments/benchmark.py --output runs/benchmark.json     # under a quarter of an hour on two cores
    python experiments/benchmark.py --quick                          # under two minutes
    python experiments/benchmark.py --parts points wide --rounds 30

knn, edge_conv: beside torch-cluster and PyG. points: a training step of MGIC-DGCNN, of our dense DGCNN, of a
plain port of DGCNN, and of one built from PyG's EdgeConv on torch-cluster's k-NN; wide: our two at four times
the widths. blocks: a residual block beside the dense one, torchvision's and timm's. images: MGIC-ResNet-56
and ResNet-56. pyg: MGICGraphConv beside PyG's layers, ungrouped. growth: over points and over clouds. memory:
the peak of one step, each in a fresh process. loading: the share of a training epoch on cached clouds that
passes outside the model, and caching of meshes by one process and by all cores. layers (not by default):
PyG's layers in 16 groups of 16 channels, on the fast path and as one small layer a group, in processor time
if there is one thread.

Steps take turns; figures are medians with quartiles, ratios those of the medians with the quartiles over
rounds. The floor is the time of a step's multiply-adds at the rate of a large matrix product here, or of its
least memory traffic at the rate of a large copy, whichever is longer; distances of k-NN count a quarter, as
bytes can tell who is near; a peer has the floor of ours, as it computes the same. On a CUDA GPU the clock is
its events, float32 is float32 (no TF32, in products or convolutions), and rows of bfloat16 and torch.compile
join.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from mgic_geo.benchmark import (
    PARTS,
    Config,
    Report,
    describe_machine,
    full_float32,
    missing,
    verdict_table,
)
from mgic_geo.memory import keep_memory
from mgic_geo.training.command_line import command_line
from mgic_geo.training.errors import UsageError, check_target, plain_errors, write_text


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print, with the arguments ``argv`` or those of the command line."""
    flags = command_line(Config, argv, __doc__)
    with plain_errors():
        if found := flags.problems():
            raise UsageError("\n       ".join(found))
        check_target("--output", flags.output)
    config = flags.resolved()
    torch.manual_seed(0)
    full_float32()
    if config.keep_memory:
        keep_memory()
    about = describe_machine(config.device)
    print(introduction(about, config), flush=True)
    reports: dict[str, list[Report]] = {}
    for part in config.parts:
        reports[part] = []
        for report in PARTS[part](config):
            reports[part].append(report)
            print(f"\n{report.title}\n\n{report.text}", flush=True)
    verdicts = [verdict for part in reports.values() for report in part for verdict in report.verdicts]
    if verdicts:
        note = " (made for the full sizes, not for these)" if config.quick else ""
        print(f"\nAll bars{note}\n\n{verdict_table(verdicts)}")
    if config.output:
        content = {
            "config": asdict(config),
            "machine": about,
            "rates": asdict(config.rates()),
            "rows": {
                part: [row for report in found for row in report.rows] for part, found in reports.items()
            },
            "bars": [asdict(verdict) | {"met": verdict.met} for verdict in verdicts],
        }
        with plain_errors():
            write_text(config.output, json.dumps(content, indent=1, default=str) + "\n")


def introduction(about: dict[str, Any], config: Config) -> str:
    """The machine, the versions and what is missing; the measured rates."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items() if number)
    where = about.get("gpu", f"{about['processor']}, {about['threads']} threads of {about['cores']} cores")
    lines = [f"{where}; {versions}", *missing(config.device)]
    if set(config.parts) - {"layers", "growth", "memory", "loading"}:
        rates = config.rates()
        lines.append(
            f"rates here: {rates.multiply_adds / 1e9:.0f} G multiply-adds/s, {rates.bytes / 1e9:.1f} GB/s"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
