"""Batches of images with masks, cut from memory or read from files, for training and for judging."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeAlias, Union

import torch
from torch import Tensor

from mgic_geo.datasets import (
    FileLoader,
    ImageLoader,
    Normalization,
    PerSample,
    SegmentationAugment,
    SegmentedImages,
)
from mgic_geo.training.data import MakeLoader

if TYPE_CHECKING:
    from mgic_geo.datasets import SegmentedFiles  # needs torchvision, which point clouds do without

Split: TypeAlias = Union[SegmentedImages, "SegmentedFiles"]

WHOLE = 8  # whole images in a batch, where all are of one size and in memory


def training_batches(
    split: Split,
    batch_size: int,
    normalization: Normalization,
    augment: SegmentationAugment,
    *,
    channels_last: bool = False,
    workers: int | None = None,
    seed: int = 0,
) -> MakeLoader:
    """Return the maker of shuffled, augmented batches.

    Args:
        split: The images.
        batch_size: Images in a batch, on each rank.
        normalization: Of their colours.
        augment: Random changes.
        channels_last: Let the batches lie in memory pixel by pixel.
        workers: Processes that read files; None: one a core, but 8 at most.
        seed: Decides order and augmentation, with the epoch and the rank.
    """
    loader = partial(
        ImageLoader if isinstance(split, SegmentedImages) else FileLoader,
        split,  # type: ignore[arg-type]
        batch_size,
        normalization=normalization,
        train=True,
        channels_last=channels_last,
        seed=seed,
    )
    if isinstance(split, SegmentedImages):
        return partial(loader, augment=augment)
    return partial(loader, transform=PerSample(augment, normalization), workers=workers)


def whole_batches(split: Split, normalization: Normalization, workers: int | None = None) -> MakeLoader:
    """Return the maker of batches of whole images, in the order of ``split``."""
    if isinstance(split, SegmentedImages):
        return partial(ImageLoader, split, WHOLE, normalization=normalization)
    return partial(FileLoader, split, 1, normalization=normalization, workers=workers)  # sizes may differ


def look_at(split: Split, index: int) -> tuple[Tensor, Tensor]:
    """Return image ``index`` (3, H, W) uint8 and its mask (H, W) uint8."""
    if isinstance(split, SegmentedImages):
        return split.images[index], split.masks[index]
    image, mask = split.read(index)
    return image.as_subclass(torch.Tensor), mask.as_subclass(torch.Tensor)
