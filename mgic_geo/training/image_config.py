"""The flags that image experiments share, with defaults by recipe."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from mgic_geo.models import list_models
from mgic_geo.training.config import flag
from mgic_geo.training.optimizers import ImageOptimizerConfig
from mgic_geo.training.training_config import TrainingConfig, parse_training, scan_flag

ConfigT = TypeVar("ConfigT", bound=TrainingConfig)

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
class ImageConfig(ImageOptimizerConfig, TrainingConfig):
    """Flags that image experiments share."""

    families: ClassVar[tuple[str, ...]] = ("",)

    model: str
    """Name of the network."""
    group_size: int | None = None
    """Channels per group, for MGIC models; by default as the name says."""
    coarse_size: int | None = None
    """Channels of the coarsest, fully coupled level, at most, for MGIC models; by default likewise."""
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
        found = super().problems()
        if self.warmup is not None and self.warmup >= self.epochs > 0:
            found.append(
                f"--warmup is {self.warmup:g}, but the run has --epochs {self.epochs} and so only warms up; "
                "give less, or leave it out for a tenth of the run, and 5 at most"
            )
        found += self.at_least(group_size=1, coarse_size=1, accumulate=1)
        if self.model_kwargs() and "mgic" not in self.model:
            flags = " and ".join(map(flag, self.model_kwargs()))
            found.append(f"sizes belong to MGIC models; leave out {flags} for {self.model}")
        if self.model not in (models := self.models()):
            near = difflib.get_close_matches(self.model, models, n=3) or models
            found.append(f"--model is {self.model}, which is none of this task's; try {', '.join(near)}")
        return found

    @classmethod
    def models(cls) -> list[str]:
        """Return the names of the networks that the task can train: those that begin as its families."""
        return [name for name in list_models() if name.removeprefix("mgic_").startswith(cls.families)]


@dataclass(kw_only=True)
class ImageFileConfig(ImageConfig):
    """Flags of experiments that may read their images from files in each epoch."""

    workers: int | None = None
    """Processes that read image files, on each device; by default one a core, but 8 at most."""
    verify: bool = True
    """Read all image files before the training. Otherwise a corrupt one stops it, named, when it is met."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems()
        found += self.at_least(workers=0, hint=" (read in the training's process)")
        if self.skip_corrupt and not self.verify:
            found.append("--skip-corrupt leaves out what --verify finds; leave --no-verify out")
        return found


def parse_recipe(
    config: type[ConfigT],
    recipes: Mapping[str, Mapping[str, Any]],
    argv: Sequence[str] | None,
    description: str | None,
) -> ConfigT:
    """Read the command line, with the defaults of the recipe that it names by ``--recipe``.

    So ``--help`` shows a recipe's values, config.yaml records them, and each can be given another value.

    Args:
        config: The dataclass of the flags; its own defaults are those of a recipe with no entries.
        recipes: Flags and values of each recipe.
        argv: The arguments; None for those of the process.
        description: The text at the head of ``--help``.
    """
    recipe = recipes.get(
        scan_flag("--recipe", argv) or "", {}
    )  # the command line refuses names that are none
    return parse_training(config, argv, description, recipe)
