"""The classifier as a Lightning module: loss and accuracy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgic_geo.training.learner import Learner, Measure
from mgic_geo.training.optimizers import OptimizerConfig

ACCURACY = Measure("accuracy", "accuracy", "Accuracy", "share classified rightly")


class Classifier(Learner[OptimizerConfig]):
    """Trains a model that maps inputs (B, …) to logits (B, C) with cross-entropy.

    The training loader must have ``set_epoch``. Logged for each epoch, over all ranks: ``train_loss``,
    ``train_accuracy`` and, with validation, ``val_loss`` and ``val_accuracy``.

    Args:
        model: The model.
        config: Loss and optimiser.
        seed: With the epoch and the rank it decides every random number the model draws, as for dropout.
    """

    measure = ACCURACY

    def __init__(self, model: nn.Module, config: OptimizerConfig, seed: int = 0):
        super().__init__(model, config, (2,), seed)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy with smoothed labels."""
        return F.cross_entropy(logits, targets, label_smoothing=self.config.label_smoothing)

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(logits, targets)

    def count(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return how many were classified rightly, and how many there are."""
        right = (logits.argmax(1) == targets).sum()
        return torch.stack([right, right.new_full((), len(targets))])

    @staticmethod
    def score(counts: Tensor) -> Tensor:
        """Return the share classified rightly."""
        return counts[0] / counts[1]
