"""Evaluation of a segmenter on a whole split, in one process and in float32."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from mgic_geo.training.segmentation.confusion import class_iou, confusion_matrices, mean_iou


@dataclass(frozen=True)
class SegmentationEvaluation:
    """How a segmenter's answers to S images compare with the truth; pixels without a label do not count.

    Args:
        confusions: (S, C, C) int64 counts of pixels: rows are true classes, columns predicted ones.
        classes: C class names.
    """

    confusions: Tensor
    classes: tuple[str, ...]

    @cached_property
    def confusion(self) -> Tensor:
        """(C, C) counts over the pixels of all images."""
        return self.confusions.sum(0)

    @property
    def class_iou(self) -> Tensor:
        """(C,) intersection over union; NaN for classes neither in the truth nor in a prediction."""
        return class_iou(self.confusion)

    @property
    def miou(self) -> float:
        """Mean of ``class_iou`` over the classes that have one."""
        return float(mean_iou(self.confusion))

    @property
    def accuracy(self) -> float:
        """Share of the pixels classified rightly."""
        return float(self.confusion.diag().sum() / self.confusion.sum())

    @property
    def class_recall(self) -> Tensor:
        """(C,) share of a class's pixels classified rightly; NaN for classes without pixels."""
        return self.confusion.diag() / self.confusion.sum(1)

    @property
    def class_accuracy(self) -> float:
        """Mean of ``class_recall`` over the classes that have one."""
        return float(self.class_recall.nanmean())

    @property
    def image_miou(self) -> Tensor:
        """(S,) mean IoU of each image by itself; NaN for images without labelled pixels."""
        return mean_iou(self.confusions)

    def standard_error(self, draws: int = 1000) -> float:
        """Return that of ``miou``: its deviation over sets of the images, drawn with replacement.

        Images without a label are left out, since a set of such has no IoU; it is NaN with under two others.
        """
        labelled = self.confusions[self.confusions.flatten(1).any(1)]
        size = len(labelled)
        if size < 2:
            return math.nan
        times = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), draws)
        sums = torch.from_numpy(times).double() @ labelled.flatten(1).double()
        return float(mean_iou(sums.view(draws, *self.confusion.shape)).std())

    def worst_first(self) -> Tensor:
        """(S,) image indices, those of least ``image_miou`` first; those without labelled pixels last."""
        return self.image_miou.nan_to_num(2.0).argsort(stable=True)


@torch.inference_mode()
def evaluate_segmenter(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    classes: tuple[str, ...],
    device: torch.device | str = "cpu",
) -> SegmentationEvaluation:
    """Runs ``model`` in evaluation mode on ``device`` over ``batches`` of (images, masks), in their order.

    Raises:
        ValueError: If a logit is not finite, so the training diverged; or no pixel has a label.
    """
    model.to(device).eval()
    found = []
    for images, masks in batches:
        logits = model(images.to(device)).float()
        if not logits.isfinite().all():
            raise ValueError("the model's logits are not finite: the training diverged; lower --lr")
        found.append(confusion_matrices(logits.argmax(1), masks.to(device), len(classes)).cpu())
    result = SegmentationEvaluation(torch.cat(found), classes)
    if not result.confusion.any():
        raise ValueError("no pixel of the images has a label, so there is nothing to judge by")
    return result
