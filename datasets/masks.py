"""Images of one size with a class for each pixel, in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .images import check_images

IGNORE = 255  # the label of pixels that count neither in the loss nor in the metrics

Palette = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class SegmentedImages:
    """One split of a data set, in memory: S images of one size, each with a mask.

    Args:
        images: (S, 3, H, W) uint8.
        masks: (S, H, W) uint8, indices into ``classes``, or ``IGNORE``.
        names: S names, for messages and pictures.
        classes: Class names, in the order of the labels.
        palette: A colour (red, green, blue in 0 … 255) for each class, for pictures.

    Raises:
        ValueError: If the parts do not fit together.
    """

    images: Tensor
    masks: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]
    palette: Palette

    def __post_init__(self) -> None:
        check_images(self.images, len(self.names))
        shape = (len(self), *self.images.shape[2:])
        if self.masks.shape != shape or self.masks.dtype != torch.uint8:
            raise ValueError(
                f"masks must be {shape} in uint8, one an image; "
                f"got {tuple(self.masks.shape)} in {str(self.masks.dtype).removeprefix('torch.')}"
            )
        if len(self.palette) != len(self.classes):
            raise ValueError(
                f"palette must hold one colour a class, {len(self.classes)}; got {len(self.palette)}"
            )
        for name, mask in zip(self.names, self.masks, strict=True):
            if bad := unknown_labels(mask, len(self.classes)):
                raise ValueError(
                    f"the mask of {name} holds {bad}; labels must lie in 0 … {len(self.classes) - 1}, "
                    f"or be {IGNORE}"
                )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def strata(self) -> Tensor:
        """(S,) zeros: an image with a mask has no class of its own."""
        return torch.zeros(len(self), dtype=torch.int64)

    def name(self, index: int) -> str:
        """The name of image ``index``."""
        return self.names[index]

    def subset(self, indices: Tensor) -> SegmentedImages:
        """The images at ``indices`` (int64), in that order."""
        return SegmentedImages(
            self.images[indices],
            self.masks[indices],
            tuple(self.names[i] for i in indices.tolist()),
            self.classes,
            self.palette,
        )


def unknown_labels(mask: Tensor, num_classes: int) -> list[int]:
    """The values of a mask (uint8) that are neither one of the classes nor ``IGNORE``, sorted."""
    counts = mask.flatten().bincount(minlength=256)
    counts[:num_classes] = 0
    counts[IGNORE] = 0
    return counts.nonzero()[:, 0].tolist()
