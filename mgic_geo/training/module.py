"""The classifier as a Lightning module: loss and metrics."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from mgic_geo.training.learner import Learner
from mgic_geo.training.optimizers import OptimizerConfig


class Classifier(Learner[OptimizerConfig]):
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
        super().__init__(model, config, seed)
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
