"""The flags of experiments that train a model, save it, and say how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mgic_geo.training.config import RunConfig
from mgic_geo.training.optimizers import OptimizerConfig


@dataclass(kw_only=True)
class TrainingConfig(OptimizerConfig, RunConfig):
    """Flags of experiments that train a model, save it, and say how good it is."""

    eval: Path | None = None
    """Train nothing: evaluate this saved model (a run's folder, its model.safetensors, or a name of
    mgic_geo.list_pretrained()) on the test samples of --data, print the table and draw its pictures anew
    beside it; for a name, in the current folder."""
    val_fraction: float = 0.0
    """Share of the training samples kept aside to draw a validation curve."""
    skip_corrupt: bool = False
    """Leave samples out that cannot be used, instead of stopping and naming them."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems() + self.shares("val_fraction")
        if self.eval is not None and self.resume:
            found.append("--eval trains nothing, so there is nothing to --resume; give one of the two")
        return found
