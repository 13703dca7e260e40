"""What every experiment is asked for, and the checks on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from mgic_geo.training.errors import UsageError


def flag(name: str) -> str:
    """Return how the field ``name`` is called on the command line."""
    return f"--{name.replace('_', '-')}"


@dataclass(kw_only=True)
class Flags:
    """The base of all scripts' flags, whose values are checked together, before any work is done."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy; an empty list if nothing is."""
        return []

    def validate(self) -> None:
        """Raise :class:`UsageError` with all that is wrong."""
        if found := self.problems():
            raise UsageError("\n       ".join(found))

    def at_least(self, *, hint: str = "", **lows: float) -> list[str]:
        """Return what lies below its lowest value, or is not finite; what is None counts as right."""
        return [
            f"{flag(name)} is {value}; give {low}{hint} or more"
            for name, low in lows.items()
            if (value := getattr(self, name)) is not None and not low <= value < math.inf
        ]

    def shares(self, *names: str) -> list[str]:
        """Return what is no share that leaves something: 0 or more, under 1."""
        return [
            f"{flag(name)} is {value}; give 0 or more, under 1"
            for name in names
            if not 0 <= (value := getattr(self, name)) < 1
        ]


@dataclass(kw_only=True)
class RunConfig(Flags):
    """Flags that all experiments share."""

    data: str
    """Data to train on."""
    epochs: int = 30
    """Passes over the training set."""
    batch_size: int = 16
    """Samples per step, on each device."""
    seed: int = 0
    """Decides initial weights, order, augmentation and dropout. Same seed, same machine: on CPU the same
    result."""
    output: Path
    """Folder for everything the run writes."""
    resume: bool = False
    """Continue the run in --output from its last finished epoch, or start it if there is none yet. On CPU the
    weights come out as if it had never been interrupted, bit for bit."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic while training. Evaluation and validation are always float32."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """auto takes a GPU if there is one."""
    compile: bool = False
    """Compile the model with torch.compile: a slow first step, faster ones after."""

    # Only some experiments have flags for these.
    devices = 1
    accumulate = 1
    deterministic = False
    ema = 0.0
    channels_last = False

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        gpus = torch.cuda.device_count()
        found = super().problems() + self.at_least(epochs=1, batch_size=2, seed=0)
        if self.seed >= 2**63:
            found.append(f"--seed is {self.seed}; give a number below 2**63")
        if self.accelerator == "gpu" and not gpus:
            found.append("--accelerator gpu, but PyTorch sees no GPU here; use --accelerator cpu")
        if self.precision == "16-mixed" and (self.accelerator == "cpu" or not gpus):
            found.append("--precision 16-mixed needs a GPU; on CPU use bf16-mixed or 32-true")
        return found
