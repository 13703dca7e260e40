"""The classifier as a Lightning module: loss, metrics, optimisers and schedules."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from mgic_geo.training.config import OptimizerConfig


class Classifier(L.LightningModule):
    """
    Trains a model that maps inputs (B, …) to logits (B, C) with cross-entropy.

    The training loader must have ``set_epoch``. Logged for each epoch, over all ranks: ``train_loss``,
    ``train_accuracy`` and, with validation, ``val_loss`` and ``val_accuracy``.

    Args:
        model: the model.
        num_classes: C.
        config: loss and optimiser.
        seed: with the epoch and the rank it decides every random number the model draws, as for dropout.
    """

    def __init__(self, model: nn.Module, num_classes: int, config: OptimizerConfig, seed: int = 0):
        super().__init__()
        self.model, self.config, self.seed = model, config, seed
        # Looking at the values at every step would make a GPU wait, so torchmetrics' checks are off.
        self.train_accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro", validate_args=False)
        self.train_loss, self.val_loss = (
            MeanMetric(nan_strategy="disable"),
            MeanMetric(nan_strategy="disable"),
        )

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with smoothed labels."""
        return F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)

    def on_train_epoch_start(self) -> None:
        """Seed the epoch by its number, so that a resumed run draws what the uninterrupted one drew."""
        self.trainer.train_dataloader.set_epoch(self.current_epoch)  # type: ignore[union-attr]
        entropy = np.random.SeedSequence([self.seed, self.current_epoch, self.global_rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return ``loss`` and ``correct``, how many of the batch were classified rightly."""
        inputs, labels = batch
        logits = self.model(inputs).float()
        loss = self.loss(logits, labels)
        self.train_loss.update(loss.detach(), len(labels))
        self.train_accuracy.update(logits.detach(), labels)
        return {"loss": loss, "correct": (logits.detach().argmax(1) == labels).sum()}

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means."""
        self.log_dict({"train_loss": self.train_loss, "train_accuracy": self.train_accuracy})

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add one batch to the validation metrics."""
        inputs, labels = batch
        logits = self.model(inputs).float()
        self.val_loss.update(self.loss(logits, labels), len(labels))
        self.val_accuracy.update(logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Log the means over the validation set."""
        self.log_dict({"val_loss": self.val_loss, "val_accuracy": self.val_accuracy})

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, which steps once per batch."""
        steps, peak, decay = (
            int(self.trainer.estimated_stepping_batches),
            self.config.peak_lr,
            self.config.decay,
        )
        if self.config.optimizer == "sgd":
            optimizer = torch.optim.SGD(self.model.parameters(), lr=peak, momentum=0.9, weight_decay=decay)
            schedule = CosineAnnealingLR(optimizer, T_max=steps, eta_min=peak / 100)
        else:
            optimizer = torch.optim.AdamW(parameter_groups(self.model, decay), lr=peak)
            schedule = OneCycleLR(optimizer, max_lr=peak, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Split the parameters: matrices decay by ``decay``, vectors (norms and biases) do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
