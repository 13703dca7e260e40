"""Weights of classes in the loss of a segmenter, from how often they occur."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

ClassWeights = Literal["none", "root", "median"]


def class_weights(counts: Tensor, kind: ClassWeights) -> Tensor | None:
    """Return weights by median-frequency balancing (Eigen and Fergus, 2015), or gentler ones.

    A class's frequency is its share of the pixels of the images it occurs in; its weight is the median of
    all frequencies over its own. A class that does not occur at all has weight 1.

    Args:
        counts: (S, C) labelled pixels of each class in each image.
        kind: ``median``; ``root``, the square roots of these weights; or ``none``.

    Returns:
        (C,) float32, or None for ``none``.
    """
    if kind == "none":
        return None
    present = counts > 0
    pixels = (counts.sum(1, keepdim=True) * present).sum(0)
    occurs = pixels > 0
    frequency = counts.sum(0)[occurs].double() / pixels[occurs]
    weights = counts.new_ones(counts.shape[1], dtype=frequency.dtype)
    weights[occurs] = frequency.quantile(0.5) / frequency
    return (weights.sqrt() if kind == "root" else weights).float()
