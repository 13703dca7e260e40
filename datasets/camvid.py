"""CamVid: road scenes of 480 × 360 pixels in eleven classes, small enough to be kept in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .cachefile import cache_file, cache_folder, make_once
from .decode import EDITION, decode_mask
from .files import fingerprint
from .hdf5 import opened_hdf5, read_arrays, read_text
from .masks import IGNORE, SegmentedImages, unknown_labels
from .pairs import LAYOUT as FOLDERS
from .pairs import decode_pairs
from .problems import CorruptImageError, raise_or_warn

LAYOUT = 1  # part of every cache's name: raise it when the same files would give other tensors
VOID = 11  # the label of unlabelled pixels in the files

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist"
)  # fmt: skip
PALETTE = (
    (128, 128, 128),
    (128, 0, 0),
    (192, 192, 128),
    (128, 64, 128),
    (60, 40, 222),
    (128, 128, 0),
    (192, 128, 128),
    (64, 64, 128),
    (64, 0, 128),
    (64, 64, 0),
    (0, 128, 192),
)


def load_camvid(
    data: str | os.PathLike[str],
    splits: Sequence[str] = ("train", "val"),
    *,
    cache: str | os.PathLike[str] | None = None,
    skip_corrupt: bool = False,
    progress: bool = True,
) -> tuple[SegmentedImages, ...]:
    """Load splits of CamVid, or of other data in its layout and classes, decoding the files the first time.

    Layout: a folder, zip or tar of images ``CamVid/<split>/NAME.jpg`` (or .png) and masks
    ``CamVid/<split>annot/NAME.png`` with labels 0 … 10, and 11 or 255 where pixels do not count. What was
    decoded is kept in an HDF5 file of the cache folder, whose name tells the files it was made from.

    Args:
        data: The folder or archive.
        splits: Those to return; the data may have others. Where it has no ``"val"``, pass ``["train"]`` and
            draw one with :func:`split_validation`.
        cache: The cache folder; by default the environment variable ``MGIC_DATA``, or else ``data`` in
            the current folder.
        skip_corrupt: Leave out images that cannot be used, with a warning, instead of stopping.
        progress: Show a progress bar, if stderr is a terminal.

    Returns:
        One :class:`SegmentedImages` a split, images and masks of one size.

    Raises:
        FileNotFoundError: If there is nothing at ``data``.
        ValueError: If it lacks a split, or is not in the layout.
        CorruptImageError: If images or masks cannot be decoded, lack their partner, differ in size or hold
            unknown labels; the error's ``problems`` lists all of them.
    """
    path = Path(data)
    name = path.resolve().name.partition(".")[0].lower()
    file = cache_file(cache_folder(cache), name, "camvid", LAYOUT, EDITION, fingerprint(path))
    raise_or_warn(*make_once(file, partial(decode_pairs, path, _labels, progress)), path, skip_corrupt)
    return tuple(_read(file, split, path) for split in splits)


def _read(file: Path, split: str, path: Path) -> SegmentedImages:
    with opened_hdf5(file) as opened:
        if split not in opened:
            raise ValueError(
                f"{path} has no split {split!r} with masks but {', '.join(opened)}; the layout is {FOLDERS}"
            )
        images, masks, names = read_arrays(
            opened, [f"{split}/{part}" for part in ("images", "masks", "names")]
        )
    return SegmentedImages(
        torch.from_numpy(images), torch.from_numpy(masks), read_text(names), CLASSES, PALETTE
    )


def _labels(content: bytes) -> Tensor:
    mask = decode_mask(content)
    mask[mask == VOID] = IGNORE
    if unknown := unknown_labels(mask, len(CLASSES)):
        raise CorruptImageError(
            f"holds the labels {unknown}; labels must lie in 0 … {len(CLASSES) - 1}, "
            f"or be {VOID} or {IGNORE} where pixels do not count"
        )
    return mask
