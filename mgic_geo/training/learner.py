"""What all Lightning modules here do alike: step, measure, log, seed each epoch, optimise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import MeanMetric, Metric

from mgic_geo.training.divergence import refuse_divergence
from mgic_geo.training.optimizers import OptimizerConfig

ConfigT = TypeVar("ConfigT", bound=OptimizerConfig)


@dataclass(frozen=True)
class Measure:
    """What a task is judged by, beside its loss: a figure in 0 … 1, the higher the better.

    Args:
        key: Logged as ``train_<key>`` and ``val_<key>``.
        name: In a line of text.
        title: Above a picture.
        unit: What its values are.
    """

    key: str
    name: str
    title: str
    unit: str


class Learner(L.LightningModule, Generic[ConfigT]):
    """The base of :class:`Classifier` and :class:`Segmenter`, which say what the loss and the measure are.

    The training loader must have ``set_epoch``. Logged for each epoch, over all ranks: ``train_loss``, the
    measure as ``train_<key>`` and, with validation, ``val_loss``, the plain cross-entropy, and ``val_<key>``.

    Args:
        model: Maps inputs (B, …) to logits.
        config: Loss and optimiser.
        counts: The shape of what :meth:`count` returns.
        seed: With the epoch and the rank it decides every random number the model draws, as for dropout.
    """

    measure: ClassVar[Measure]

    def __init__(self, model: nn.Module, config: ConfigT, counts: tuple[int, ...], seed: int = 0):
        super().__init__()
        self.model, self.config, self.seed = model, config, seed
        self.train_score, self.val_score = Score(counts, self.score), Score(counts, self.score)
        # With "disable", which alone keeps NaN and lets no GPU wait, torchmetrics 1.9 ignores weights: so a
        # batch's mean is given once for each of its samples.
        self.train_loss, self.val_loss = (MeanMetric(nan_strategy="disable") for _ in range(2))

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar."""
        raise NotImplementedError

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the plain cross-entropy of a batch, a scalar: what validation logs."""
        raise NotImplementedError

    def count(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return integers that, added up over batches and ranks, :meth:`score` can be computed from."""
        raise NotImplementedError

    @staticmethod
    def score(counts: Tensor) -> Tensor:
        """Return the measure, a scalar."""
        raise NotImplementedError

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return ``loss``, and the ``counts`` of the batch."""
        inputs, targets = batch
        logits = self.model(inputs).float()
        loss, counts = self.loss(logits, targets), self.count(logits.detach(), targets)
        self.train_loss.update(loss.detach().expand(len(targets)))
        self.train_score.update(counts)
        return {"loss": loss, "counts": counts}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Give the last step of an epoch the mean gradient of its batches, where it has fewer than others.

        Lightning divides each batch's loss by ``accumulate_grad_batches``, however many follow.
        """
        planned = self.trainer.accumulate_grad_batches
        if taken := (self.trainer.fit_loop.batch_idx + 1) % planned:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(planned / taken)

    def on_train_epoch_start(self) -> None:
        """Seed the epoch by its number, so that a resumed run draws what the uninterrupted one drew."""
        self.trainer.train_dataloader.set_epoch(self.current_epoch)  # type: ignore[union-attr]
        entropy = np.random.SeedSequence([self.seed, self.current_epoch, self.global_rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0]))

    def on_train_epoch_end(self) -> None:
        """Log the epoch's figures, unless the training diverged: the checkpoint of this epoch comes after."""
        refuse_divergence(self.model, self.train_loss.compute(), self.trainer)
        self.log_dict({"train_loss": self.train_loss, f"train_{self.measure.key}": self.train_score})

    def on_validation_start(self) -> None:
        """Give all ranks the buffers of rank 0, whose model is saved: the averages of batch norm differ.

        Once an epoch, so shards of unequal size wait for nothing. Callbacks come first, so :class:`EMA` has
        put its average in.
        """
        if self.trainer.world_size > 1:
            for buffer in self.model.buffers():
                dist.broadcast(buffer, src=0)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Add one batch to the validation's figures, in float32 whatever the training's precision."""
        inputs, targets = batch
        with torch.autocast(self.device.type, enabled=False):
            logits = self.model(inputs)
        self.val_loss.update(self.cross_entropy(logits, targets).expand(len(targets)))
        self.val_score.update(self.count(logits, targets))

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the validation set."""
        self.log_dict({"val_loss": self.val_loss, f"val_{self.measure.key}": self.val_score})

    def configure_optimizers(self) -> Any:
        """Return the optimiser and its schedule, which moves on with each of the optimiser's steps."""
        steps, epochs = int(self.trainer.estimated_stepping_batches), self.trainer.max_epochs
        assert epochs is not None
        optimizer, schedule = self.config.optimization(self.model, steps, epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Score(Metric):
    """A figure computed from counts that add up over batches and ranks.

    Args:
        shape: Of the counts.
        score: Computes the figure, a scalar, from the sum.
    """

    counts: Tensor

    def __init__(self, shape: tuple[int, ...], score: Callable[[Tensor], Tensor]):
        super().__init__()
        self.add_state("counts", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.score = score

    def update(self, counts: Tensor) -> None:
        """Add a batch's counts."""
        self.counts = self.counts + counts

    def compute(self) -> Tensor:
        """Return the figure."""
        return self.score(self.counts)
