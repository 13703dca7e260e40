"""Labelled images of one size, in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """One split of a data set, in memory: S images of one size.

    Args:
        images: (S, 3, H, W) uint8.
        labels: (S,) int64, indices into ``classes``.
        names: S names, for messages and pictures.
        classes: Class names, in the order of the labels.

    Raises:
        ValueError: If the parts do not fit together.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_images(self.images, len(self.names))
        if self.labels.shape != (len(self),):
            raise ValueError(f"labels must be ({len(self)},), one a name; got {tuple(self.labels.shape)}")
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(
                f"labels must lie in 0 … {len(self.classes) - 1}, one a class; "
                f"got {int(self.labels.min())} … {int(self.labels.max())}"
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def strata(self) -> Tensor:
        """The labels: a validation split takes its share of each class."""
        return self.labels

    def name(self, index: int) -> str:
        """The name of image ``index``."""
        return self.names[index]

    def subset(self, indices: Tensor) -> Images:
        """The images at ``indices`` (int64), in that order."""
        return Images(
            self.images[indices],
            self.labels[indices],
            tuple(self.names[i] for i in indices.tolist()),
            self.classes,
        )


def check_images(images: Tensor, size: int) -> None:
    """Raise a ValueError unless ``images`` are ``size`` pictures (size, 3, H, W) in uint8."""
    if images.ndim != 4 or images.shape[:2] != (size, 3) or images.dtype != torch.uint8:
        raise ValueError(
            f"images must be ({size}, 3, H, W) in uint8, one a name; "
            f"got {tuple(images.shape)} in {str(images.dtype).removeprefix('torch.')}"
        )
