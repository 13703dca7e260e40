"""Cityscapes: road scenes of 2048 × 1024 pixels with the benchmark's 19 classes, read from files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision import tv_tensors

from .cachefile import cache_file, cache_folder
from .checked import check_files
from .decode import EDITION, decode_image, decode_mask
from .file_loader import Sample
from .files import fingerprint, read_bytes
from .masks import IGNORE, Palette
from .problems import CorruptImageError, raise_or_warn

# Each class of the benchmark, in the order of the train ids: its label id in the files, and its colour.
_CLASSES = {
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
CLASSES = tuple(_CLASSES)
PALETTE: Palette = tuple(colour for _, colour in _CLASSES.values())

LABEL_IDS = 34  # label ids are 0 … 33; the licence plates' id, −1, is 255 in the files
_UNKNOWN = 254


def _train_ids() -> Tensor:
    table = torch.full((256,), _UNKNOWN, dtype=torch.uint8)
    table[:LABEL_IDS] = IGNORE
    table[255] = IGNORE
    for train_id, (label_id, _) in enumerate(_CLASSES.values()):
        table[label_id] = train_id
    return table


TRAIN_IDS = _train_ids()


@dataclass(frozen=True)
class SegmentedFiles:
    """One split of a data set, on disk: S images, each with a mask.

    Args:
        images: S image files.
        masks: S mask files.
        table: (256,) uint8, the class of each value in the masks: an index into ``classes``, ``IGNORE``, or
            254 for values that must not occur.
        classes: Class names.
        palette: A colour (red, green, blue in 0 … 255) for each class, for pictures.
    """

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    table: Tensor
    classes: tuple[str, ...]
    palette: Palette

    def __len__(self) -> int:
        return len(self.images)

    @property
    def strata(self) -> Tensor:
        """(S,) zeros: an image with a mask has no class of its own."""
        return torch.zeros(len(self), dtype=torch.int64)

    def subset(self, indices: Tensor) -> SegmentedFiles:
        """The pairs at ``indices`` (int64), in that order."""
        images, masks = (tuple(part[i] for i in indices.tolist()) for part in (self.images, self.masks))
        return SegmentedFiles(images, masks, self.table, self.classes, self.palette)

    def name(self, index: int) -> str:
        """The file name of image ``index``."""
        return self.images[index].name

    def read(self, index: int) -> Sample:
        """Image ``index`` (3, H, W) uint8 and its mask (H, W) uint8, as torchvision's tv_tensors.

        Raises:
            CorruptImageError: If one of them cannot be decoded, they differ in size, or the mask holds values
                that must not occur.
        """
        image, mask = decode_image(read_bytes(self.images[index])), self.read_mask(index)
        if image.shape[1:] != mask.shape:
            raise CorruptImageError(
                f"is {image.shape[1]} × {image.shape[2]}, "
                f"but its mask {self.masks[index].name} is {mask.shape[0]} × {mask.shape[1]}"
            )
        return tv_tensors.Image(image), tv_tensors.Mask(mask)

    def read_mask(self, index: int) -> Tensor:
        """Mask ``index`` (H, W) uint8: classes, or ``IGNORE``.

        Raises:
            CorruptImageError: If it cannot be decoded, or holds values that must not occur.
        """
        try:
            labels = decode_mask(read_bytes(self.masks[index]))
        except CorruptImageError as error:
            raise CorruptImageError(f"its mask {self.masks[index].name} {error}") from error
        mask = self.table[labels.int()]
        if (unknown := mask == _UNKNOWN).any():
            known = (self.table != _UNKNOWN).nonzero()[:, 0].tolist()
            raise CorruptImageError(
                f"its mask {self.masks[index].name} holds the labels {labels[unknown].unique().tolist()}; "
                f"known are {known}"
            )
        return mask


def load_cityscapes(
    root: str | os.PathLike[str],
    splits: Sequence[str] = ("train", "val"),
    *,
    verify: bool = True,
    skip_corrupt: bool = False,
    cache: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[SegmentedFiles, ...]:
    """List the images and masks of Cityscapes, and see that all can be read and fit together.

    Layout, as the official archives ``leftImg8bit_trainvaltest.zip`` and ``gtFine_trainvaltest.zip`` unpack:
    ``root/leftImg8bit/<split>/<city>/NAME_leftImg8bit.png`` and
    ``root/gtFine/<split>/<city>/NAME_gtFine_labelIds.png``. The official test masks hold no labels.

    Args:
        root: The folder.
        splits: Those to return.
        verify: Read all files now. What came of it is kept in the cache folder, under a name that tells the
            files. Otherwise a corrupt one stops the training, named, when it is met.
        skip_corrupt: Leave out pairs that cannot be used, with a warning, instead of stopping.
        cache: The cache folder; by default the environment variable ``MGIC_DATA``, or else ``data`` in
            the current folder.
        workers: Processes that verify; 0: none but this one; None: one a core, or none where files are few.
        progress: Show progress bars, if stderr is a terminal.

    Returns:
        One :class:`SegmentedFiles` a split.

    Raises:
        FileNotFoundError: If a split's folder is missing.
        ValueError: If a split holds no images.
        CorruptImageError: If files lack their partner, cannot be decoded, differ in size from their partner
            or hold unknown labels; the error's ``problems`` lists all of them.
    """
    if skip_corrupt and not verify:
        raise ValueError("skip_corrupt leaves out what verify finds; pass verify=True with it")
    found, problems, total = [], [], 0
    for split in splits:
        files, unpaired = _list(Path(root), split)
        problems += unpaired
        total += len(files) + len(unpaired)
        if verify:
            stamps = [fingerprint(Path(root) / kind / split) for kind in ("leftImg8bit", "gtFine")]
            record = cache_file(cache_folder(cache), f"cityscapes-{split}", "cityscapes", EDITION, stamps)
            files, bad = check_files(files, record, root, workers=workers, progress=progress)
            problems += bad
        found.append(files)
    raise_or_warn(problems, total, root, skip_corrupt)
    return tuple(found)


def _list(root: Path, split: str) -> tuple[SegmentedFiles, list[str]]:
    """The pairs of a split, and what is wrong with files that have no partner."""
    found: list[dict[str, Path]] = []
    for kind, suffix in (("leftImg8bit", "_leftImg8bit.png"), ("gtFine", "_gtFine_labelIds.png")):
        folder = root / kind / split
        if not folder.is_dir():
            raise FileNotFoundError(
                f"there is no folder {folder}; unpack Cityscapes' leftImg8bit and gtFine archives into {root}"
            )
        files = folder.glob(f"[!.]*/[!.]*{suffix}")
        found.append({f"{file.parent.name}/{file.name.removesuffix(suffix)}": file for file in files})
    images, masks = found
    keys = sorted(images.keys() & masks.keys())
    if not keys:
        raise ValueError(
            f"{root} holds no images with masks of the split {split!r}, "
            f"leftImg8bit/{split}/<city>/*_leftImg8bit.png and gtFine/{split}/<city>/*_gtFine_labelIds.png"
        )
    problems = [f"{images[key].name}: has no mask of its name" for key in images.keys() - masks.keys()]
    problems += [f"{masks[key].name}: has no image of its name" for key in masks.keys() - images.keys()]
    files = SegmentedFiles(
        tuple(images[key] for key in keys), tuple(masks[key] for key in keys), TRAIN_IDS, CLASSES, PALETTE
    )
    return files, sorted(problems)
