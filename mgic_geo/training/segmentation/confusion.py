"""Confusion matrices of segmentations, and the intersections over unions computed from them."""

from __future__ import annotations

import torch
from torch import Tensor

from mgic_geo.datasets import IGNORE


def confusion_matrices(predictions: Tensor, masks: Tensor, num_classes: int) -> Tensor:
    """Count, for each image, how often each true class (rows) was taken for each class (columns).

    Nothing here makes a GPU wait.

    Args:
        predictions: (B, H, W) int64 in 0 … C − 1.
        masks: (B, H, W) int64 in 0 … C − 1, or ``IGNORE`` where a pixel does not count.
        num_classes: C.

    Returns:
        (B, C, C) int64.
    """
    cells = num_classes * num_classes
    cell = torch.where(masks == IGNORE, cells, masks * num_classes + predictions).flatten(1)
    counts = cell.new_zeros(len(cell), cells + 1)  # the last is for pixels that do not count
    counts.scatter_add_(1, cell, cell.new_ones(()).expand_as(cell))
    return counts[:, :cells].unflatten(1, (num_classes, num_classes))


def class_iou(confusion: Tensor) -> Tensor:
    """Return the intersection over union of each class.

    Args:
        confusion: (…, C, C) counts; rows are true classes.

    Returns:
        (…, C); NaN for a class that is neither in the truth nor in the prediction.
    """
    right = confusion.diagonal(dim1=-2, dim2=-1)
    return right / (confusion.sum(-1) + confusion.sum(-2) - right)


def mean_iou(confusion: Tensor) -> Tensor:
    """Return the mean of :func:`class_iou` over the classes that are in the truth or in the prediction.

    Args:
        confusion: (…, C, C) counts; rows are true classes.

    Returns:
        (…); NaN if no pixel counted.
    """
    return class_iou(confusion).nanmean(-1)
