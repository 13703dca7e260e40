"""What all Lightning modules here do alike: seed each epoch by its number, and optimise as they are told."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import lightning as L
import numpy as np
import torch
from torch import nn

from mgic_geo.training.optimizers import OptimizerConfig

ConfigT = TypeVar("ConfigT", bound=OptimizerConfig)


class Learner(L.LightningModule, Generic[ConfigT]):
    """
    The base of :class:`Classifier`. The training loader must have ``set_epoch``.

    Args:
        model: the model.
        config: loss and optimiser.
        seed: with the epoch and the rank it decides every random number the model draws, as for dropout.
    """

    def __init__(self, model: nn.Module, config: ConfigT, seed: int = 0):
        super().__init__()
        self.model, self.config, self.seed = model, config, seed

    def on_train_epoch_start(self) -> None:
        """Seed the epoch by its number, so that a resumed run draws what the uninterrupted one drew."""
        self.trainer.train_dataloader.set_epoch(self.current_epoch)  # type: ignore[union-attr]
        entropy = np.random.SeedSequence([self.seed, self.current_epoch, self.global_rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, which moves on with each of the optimiser's steps."""
        steps, epochs = int(self.trainer.estimated_stepping_batches), self.trainer.max_epochs
        assert epochs is not None
        optimizer, schedule = self.config.optimization(self.model, steps, epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
