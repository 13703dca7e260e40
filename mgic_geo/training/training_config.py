"""The flags of experiments that train a model, save it, and say how good it is."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from mgic_geo.training.command_line import command_line
from mgic_geo.training.config import RunConfig
from mgic_geo.training.optimizers import OptimizerConfig

ConfigT = TypeVar("ConfigT", bound="TrainingConfig")


@dataclass(kw_only=True)
class TrainingConfig(OptimizerConfig, RunConfig):
    """Flags of experiments that train a model, save it, and say how good it is."""

    eval: Path | None = None
    """Train nothing: evaluate this saved model (a run's folder, its model.safetensors, or a name of
    mgic_geo.list_pretrained()) on the test samples of --data, print the table and draw its pictures anew in
    --output: by default beside the model, for a name in the current folder."""
    devices: int = 1
    """Processes to train with: GPUs, or CPU processes. Under torchrun its own numbers count instead."""
    deterministic: bool = False
    """Train by deterministic algorithms, which are slower, so that a GPU, too, gives the same result for the
    same seed; a warning names what torch has none for, such as the upsampling of LR-ASPP."""
    val_fraction: float = 0.0
    """Share of the training samples kept aside to draw a validation curve."""
    skip_corrupt: bool = False
    """Leave samples out that cannot be used, instead of stopping and naming them."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        gpus = torch.cuda.device_count()
        found = super().problems() + self.at_least(devices=1) + self.shares("val_fraction")
        if self.accelerator != "cpu" and 0 < gpus < self.devices:
            found.append(f"--devices is {self.devices}, but PyTorch sees {gpus} GPU(s); give at most that")
        if self.eval is not None and self.resume:
            found.append("--eval trains nothing, so there is nothing to --resume; give one of the two")
        return found


def parse_training(
    config: type[ConfigT],
    argv: Sequence[str] | None,
    description: str | None,
    defaults: Mapping[str, Any] | None = None,
) -> ConfigT:
    """Read the command line, with the folder of the model that ``--eval`` names as default of ``--output``.

    Args:
        config: The dataclass of the flags.
        argv: The arguments; None for those of the process.
        description: The text at the head of ``--help``.
        defaults: Values of fields that take the place of the class's own.
    """
    defaults = dict(defaults or {})
    if (model := scan_flag("--eval", argv)) not in (None, "None"):
        defaults["output"] = path if (path := Path(model)).is_dir() else path.parent
    return command_line(config, argv, description, defaults)


def scan_flag(name: str, argv: Sequence[str] | None) -> str | None:
    """Return the value of a flag that decides the defaults of others, before these are read."""
    scan = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    scan.add_argument(name, dest="value", nargs="?")
    return scan.parse_known_args(argv)[0].value
