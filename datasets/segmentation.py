"""Images with masks, in memory or in files: loading by layout, and counts of their labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .camvid import CLASSES as CAMVID
from .camvid import PALETTE, load_camvid
from .cores import usable_cores
from .masks import IGNORE, Palette, SegmentedImages

if TYPE_CHECKING:
    from .cityscapes import SegmentedFiles


def load_segmentation(
    data: str | os.PathLike[str],
    splits: Sequence[str] = ("train", "val"),
    *,
    verify: bool = True,
    skip_corrupt: bool = False,
    workers: int | None = None,
) -> tuple[SegmentedImages, ...] | tuple[SegmentedFiles, ...]:
    """Load splits of Cityscapes if ``data`` has a folder ``leftImg8bit`` or ``gtFine``, else of CamVid.

    Args:
        data: For :func:`load_cityscapes` or :func:`load_camvid`, where the layouts are described.
        splits: Those to return.
        verify: Of Cityscapes, read all files now. CamVid's are decoded into memory anyway.
        skip_corrupt: Leave out images that cannot be used, with a warning, instead of stopping.
        workers: Processes that verify Cityscapes; None: one a core.

    Raises:
        FileNotFoundError: If there is nothing at ``data``, a split's folder is missing, or Cityscapes lies
            one folder deeper.
        ValueError: If it lacks a split, or is not in the layout.
        CorruptImageError: If files cannot be used; the error's ``problems`` lists all of them.
    """
    root = Path(data)
    if root.is_dir() and (deeper := next(root.glob("*/leftImg8bit"), None)):
        raise FileNotFoundError(
            f"{root} is no data set, but {deeper.parent} seems to be Cityscapes; pass that"
        )
    if any((root / folder).is_dir() for folder in ("leftImg8bit", "gtFine")):
        from .cityscapes import load_cityscapes  # needs torchvision

        return load_cityscapes(data, splits, verify=verify, skip_corrupt=skip_corrupt, workers=workers)
    return load_camvid(data, splits, skip_corrupt=skip_corrupt)


def palette_of(classes: Sequence[str]) -> Palette:
    """The colours of CamVid's or Cityscapes' classes, of any others those of PASCAL VOC."""
    if tuple(classes) == CAMVID:
        return PALETTE
    from . import cityscapes  # needs torchvision

    if tuple(classes) == cityscapes.CLASSES:
        return cityscapes.PALETTE
    return tuple(_voc_colour(label + 1) for label in range(len(classes)))


def _voc_colour(label: int) -> tuple[int, int, int]:
    # Every third bit belongs to one colour, the lowest of them to its highest.
    red, green, blue = (
        sum((label >> 3 * place + colour & 1) << 7 - place for place in range(3)) for colour in range(3)
    )
    return red, green, blue


def check_labels(split: SegmentedImages | SegmentedFiles) -> None:
    """Raise a ValueError unless a pixel of the training split has a label; reads files up to the first."""
    in_memory = isinstance(split, SegmentedImages)
    masks = split.masks if in_memory else (split.read_mask(index) for index in range(len(split)))
    if all((mask == IGNORE).all() for mask in masks):
        raise ValueError(
            f"no pixel of its {len(split)} training image(s) has a label, so there is nothing to learn; "
            "give it the masks that hold labels"
        )


def label_counts(split: SegmentedImages | SegmentedFiles, workers: int | None = None) -> Tensor:
    """Count the pixels of each class in each mask.

    Args:
        split: S images with masks of C classes.
        workers: Threads that read masks from files; None: one a core.

    Returns:
        (S, C) int64.

    Raises:
        CorruptImageError: If a file cannot be read.
    """
    classes = len(split.classes)

    def count(mask: Tensor) -> Tensor:
        return mask.flatten().bincount(minlength=classes)[:classes]

    if isinstance(split, SegmentedImages):
        return torch.stack([count(mask) for mask in split.masks])
    with ThreadPoolExecutor(max(1, usable_cores() if workers is None else workers)) as pool:
        return torch.stack(list(pool.map(lambda index: count(split.read_mask(index)), range(len(split)))))
