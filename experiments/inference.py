"""Time inference of models as they are and fused, interleaved, in several fresh processes.

    python experiments/inference.py --models mgic_dgcnn mgic_resnet56_g8_c16 --processes 5

Point clouds are 16 × 1,024 points; images 64 of 32×32 for CIFAR's networks, 8 of 224×224 for the others.
Weights are random, but for a model that comes with the package. Of each process the ratio of the medians
counts; the table shows the median of these ratios and their range. --clock cpu counts processor time, for
busy machines.
"""

from __future__ import annotations

import difflib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from mgic_geo import create_model, from_pretrained, fuse, list_pretrained
from mgic_geo.memory import keep_memory
from mgic_geo.models import list_models
from mgic_geo.timing import clock_of, interleave
from mgic_geo.training.command_line import command_line
from mgic_geo.training.config import Flags, flag
from mgic_geo.training.errors import check_target, plain_errors, write_text


@dataclass(kw_only=True)
class Config(Flags):
    """What to measure."""

    models: tuple[str, ...] = (
        "mgic_dgcnn",
        "mgic_resnet56_g8_c16",
        "mgic_resnet50_g32_c64",
        "mgic_mobilenetv3_large_100",
    )
    """Names of create_model or of list_pretrained."""
    processes: int = 5
    """Fresh processes a model; 0 measures in this one, once."""
    rounds: int = 9
    """Timed passes of each form in a process, after two that warm up."""
    batch_size: int = 0
    """Samples in a batch; 0 takes the sizes above."""
    clock: Literal["wall", "cpu"] = "wall"
    """Time that passes, or time of the processor."""
    output: Path | None = None
    """Write the figures to this JSON file, too."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems() + self.at_least(processes=0, rounds=1, batch_size=0)
        known = [*list_models(), *list_pretrained()]
        for name in self.models:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3) or known
                found.append(f"--models names {name}, which there is not; try {', '.join(near)}")
        if not self.models:
            found.append(f"--models is empty; give some of {', '.join(known)}")
        return found


@dataclass(frozen=True)
class Times:
    """Median milliseconds of a batch in one process."""

    plain: float
    fused: float


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print, with the arguments ``argv`` or those of the command line."""
    config = command_line(Config, argv, __doc__)
    with plain_errors():
        config.validate()
        check_target("--output", config.output)
        run(config)


def run(config: Config) -> None:
    """Measure and print."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {config.clock} time\n")
    print("| model | as it is, ms | fused, ms | times faster | range |\n|---|---|---|---|---|", flush=True)
    results = {}
    for name in config.models:
        runs = [fresh(name, config) for _ in range(config.processes)] or [measure(name, config)]
        results[name] = [[run.plain, run.fused] for run in runs]
        ratios = [run.plain / run.fused for run in runs]
        plain, fused = (statistics.median(times) for times in zip(*results[name], strict=True))
        print(
            f"| {name} | {plain:.0f} | {fused:.0f} | {statistics.median(ratios):.2f} | "
            f"{min(ratios):.2f} to {max(ratios):.2f} |",
            flush=True,
        )
    if config.output:
        write_text(config.output, json.dumps(results, indent=1) + "\n")


def fresh(name: str, config: Config) -> Times:
    """The times in a process of its own."""
    flags = [f"{flag(name)}={getattr(config, name)}" for name in ("rounds", "batch_size", "clock")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "times.json"
        command = [sys.executable, __file__, "--models", name, "--processes=0", *flags, f"--output={file}"]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"measuring {name} failed:\n{run.stderr}")
        return Times(*json.loads(file.read_text(encoding="utf-8"))[name][0])


def measure(name: str, config: Config) -> Times:
    """Let the model and its fused form take turns."""
    keep_memory()  # as the training scripts do
    torch.manual_seed(0)
    model = (from_pretrained if name in list_pretrained() else create_model)(name).eval()
    forms, batch = {"plain": model, "fused": fuse(model)}, example(name, config.batch_size)
    passes = {form: partial(network, batch) for form, network in forms.items()}
    with torch.inference_mode():
        times = interleave(passes, config.rounds, clock_of("cpu", config.clock))
    return Times(**{form: 1e3 * found.median for form, found in times.items()})


def example(name: str, batch_size: int) -> Tensor:
    """A batch as the model takes it."""
    if "dgcnn" in name:
        return torch.rand(batch_size or 16, 1024, 3)
    size = 32 if "resnet56" in name else 224
    return torch.rand(batch_size or (64 if size == 32 else 8), 3, size, size)


if __name__ == "__main__":
    main()
