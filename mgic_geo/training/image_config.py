"""The flags that image experiments share, with defaults by recipe."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mgic_geo.training.command_line import command_line
from mgic_geo.training.config import RunConfig, UsageError
from mgic_geo.training.optimizers import ImageOptimizerConfig

ConfigT = TypeVar("ConfigT")

# What the recipes of the paper's classifiers have in common (sections 5.2.1 and 5.2.2).
PAPER: dict[str, Any] = {
    "recipe": "paper",
    "epochs": 180,
    "optimizer": "sgd",
    "nesterov": False,
    "weight_decay": 1e-4,
    "schedule": "steps",
    "warmup": 0.0,
    "label_smoothing": 0.0,
}


@dataclass(kw_only=True)
class ImageConfig(ImageOptimizerConfig, RunConfig):
    """Flags that image experiments share."""

    eval: Path | None = None
    """Train nothing: evaluate this saved model (a run's folder, or its model.safetensors) on the test images
    of --data, print the table and draw its pictures anew beside it."""
    model: str
    """Name of the network."""
    group_size: int | None = None
    """Channels per group, for MGIC models; by default as the name says."""
    coarse_size: int | None = None
    """Channels of the coarsest, fully coupled level, at most, for MGIC models; by default likewise."""
    val_fraction: float = 0.0
    """Share of the training images kept aside to draw a validation curve."""
    skip_corrupt: bool = False
    """Leave images out that cannot be used, instead of stopping and naming them."""
    accumulate: int = 1
    """Batches whose gradients are added up to make one step of the optimiser."""
    channels_last: bool = False
    """Let images lie in memory pixel by pixel: faster or slower, by the hardware and the group sizes."""

    def model_kwargs(self) -> dict[str, Any]:
        """Return the arguments of ``create_model``."""
        sizes = {"group_size": self.group_size, "coarse_size": self.coarse_size}
        return {name: size for name, size in sizes.items() if size is not None}

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = RunConfig.problems(self) + ImageOptimizerConfig.problems(self)
        if self.warmup is not None and self.warmup >= self.epochs > 0:
            found.append(
                f"--warmup is {self.warmup:g}, but the run has --epochs {self.epochs} and so only warms up; "
                "give less, or leave it out for a tenth of the run, and 5 at most"
            )
        for name, size in (("group", self.group_size), ("coarse", self.coarse_size)):
            if size is not None and size < 1:
                found.append(f"--{name}-size is {size}; give 1 or more")
        if self.model_kwargs() and "mgic" not in self.model:
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in self.model_kwargs())
            found.append(f"sizes belong to MGIC models; leave out {flags} for {self.model}")
        if not 0 <= self.val_fraction < 1:
            found.append(f"--val-fraction is {self.val_fraction}; give 0 or more, under 1")
        if self.accumulate < 1:
            found.append(f"--accumulate is {self.accumulate}; give 1 or more")
        if self.eval is not None and self.resume:
            found.append("--eval trains nothing, so there is nothing to --resume; give one of the two")
        return found

    def check(self, models: Sequence[str]) -> None:
        """Raise :class:`UsageError` with all that is wrong; ``models`` are the names to choose from."""
        found = self.problems()
        if self.model not in models:
            near = difflib.get_close_matches(self.model, models, n=3) or models
            found.append(f"--model is {self.model}, which is none of this task's; try {', '.join(near)}")
        if found:
            raise UsageError("\n       ".join(found))


def parse_recipe(
    config: type[ConfigT],
    recipes: Mapping[str, Mapping[str, Any]],
    argv: Sequence[str] | None,
    description: str | None,
) -> ConfigT:
    """
    Read the command line, with the defaults of the recipe that it names by ``--recipe``.

    So ``--help`` shows a recipe's values, config.yaml records them, and each can be given another value.

    Args:
        config: the dataclass of the flags; its own defaults are those of a recipe with no entries.
        recipes: flags and values of each recipe.
        argv: the arguments; None for those of the process.
        description: the text at the head of ``--help``.
    """
    scan = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    scan.add_argument("--recipe", nargs="?")
    name = scan.parse_known_args(argv)[0].recipe
    return command_line(config, argv, description, recipes.get(name))  # which refuses names that are none
