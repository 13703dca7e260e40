"""A validation split drawn from a training split."""

from __future__ import annotations

from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor


class Divisible(Protocol):
    """A split that can be divided: clouds, images or files alike."""

    @property
    def strata(self) -> Tensor:
        """(S,) int64: validation takes its share of the samples of each number."""
        ...

    def subset(self, indices: Tensor) -> Self:
        """The samples at ``indices`` (int64), in that order."""
        ...


SplitT = TypeVar("SplitT", bound=Divisible)


def split_validation(train: SplitT, fraction: float = 0.1, seed: int = 0) -> tuple[SplitT, SplitT]:
    """Draw a validation split from the training split, class by class.

    Each class gives ``fraction`` of its samples, rounded, but at least one where it has two or more. Samples
    without a class of their own (pictures with masks) count as one class.

    Args:
        train: The split to divide.
        fraction: Share of the samples that validate, between 0 and 1.
        seed: Which samples are drawn; the same seed draws the same ones.

    Returns:
        (training samples, validation samples), each in the order of ``train``.

    Raises:
        ValueError: If ``fraction`` is not strictly between 0 and 1, or no class has two samples.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie strictly between 0 and 1, such as 0.1; got {fraction}")
    rng = np.random.default_rng(seed)
    strata = train.strata.numpy()
    held_out = np.zeros(len(strata), dtype=bool)
    for stratum in np.unique(strata):
        members = rng.permutation(np.flatnonzero(strata == stratum))
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out[members[:count]] = True
    if not held_out.any():
        raise ValueError(f"{len(strata)} sample(s) are too few to draw from: no class has two")
    kept, drawn = torch.from_numpy(~held_out).nonzero()[:, 0], torch.from_numpy(held_out).nonzero()[:, 0]
    return train.subset(kept), train.subset(drawn)
