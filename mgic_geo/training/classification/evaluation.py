"""Evaluation of a classifier on a whole data set, in one process and in float32."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_confusion_matrix


@dataclass(frozen=True)
class Evaluation:
    """A classifier's answers to S samples of C classes.

    Args:
        probabilities: (S, C), rows sum to 1.
        labels: (S,) true classes.
        classes: C class names.
    """

    probabilities: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    @property
    def predictions(self) -> Tensor:
        """(S,) the most probable class of each sample."""
        return self.probabilities.argmax(1)

    @cached_property
    def confusion(self) -> Tensor:
        """(C, C) counts: rows are true classes, columns predicted ones."""
        return multiclass_confusion_matrix(self.predictions, self.labels, num_classes=len(self.classes))

    @property
    def accuracy(self) -> float:
        """Share of samples classified rightly."""
        return int(self.confusion.trace()) / len(self.labels)

    def top(self, k: int) -> float:
        """Share of samples whose true class is among their ``k`` most probable; ``top(1)`` is ``accuracy``.

        Equal probabilities rank in the order of the classes, as they do in ``predictions``.

        Raises:
            ValueError: If ``k`` is not in 1 … C.
        """
        if not 1 <= k <= len(self.classes):
            raise ValueError(f"k must lie in 1 … {len(self.classes)}, the number of classes; got {k}")
        labels = self.labels[:, None]
        true = self.probabilities.gather(1, labels)
        earlier = torch.arange(len(self.classes)) < labels
        ahead = (self.probabilities > true) | ((self.probabilities == true) & earlier)
        return float((ahead.sum(1) < k).double().mean())

    @property
    def class_accuracy(self) -> float:
        """Mean over classes of the share classified rightly; classes without samples do not count."""
        totals = self.confusion.sum(1)
        return float((self.confusion.diag().double() / totals)[totals > 0].mean())

    @property
    def standard_error(self) -> float:
        """Of ``accuracy``, as that of a proportion of S samples."""
        return (self.accuracy * (1 - self.accuracy) / len(self.labels)) ** 0.5

    def worst_first(self) -> Tensor:
        """(S,) sample indices, those whose true class seemed least probable first."""
        return self.probabilities.gather(1, self.labels[:, None])[:, 0].argsort(stable=True)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    classes: tuple[str, ...],
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Runs ``model`` in evaluation mode on ``device`` over ``batches`` of (inputs, labels), in their order.

    Raises:
        ValueError: If a logit is not finite, so the training diverged.
    """
    model.to(device).eval()
    answers = [(model(inputs.to(device)).float(), labels) for inputs, labels in batches]
    logits, labels = (torch.cat(parts).cpu() for parts in zip(*answers, strict=True))
    if not logits.isfinite().all():
        raise ValueError("the model's logits are not finite: the training diverged; lower --lr")
    return Evaluation(logits.softmax(1), labels, classes)
