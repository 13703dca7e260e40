"""ImageNet, or any folder of class folders, read from files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from .cachefile import cache_file, cache_folder
from .checked import check_files
from .decode import EDITION, decode_image, is_image
from .file_loader import Sample
from .files import fingerprint, is_hidden, list_files, read_bytes
from .hdf5 import as_bytes
from .layout import check_classes, check_filled
from .problems import raise_or_warn


@dataclass(frozen=True)
class ImageFiles:
    """One split of a data set, on disk: S images of any size.

    Args:
        root: The folder of the class folders.
        files: (S,) bytes, paths within ``root``. One array, not a million strings: worker processes share it
            with their parent, while each would soon have a copy of the strings.
        labels: (S,) int64, indices into ``classes``.
        classes: Class names, in the order of the labels.
    """

    root: Path
    files: NDArray[np.bytes_]
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def strata(self) -> Tensor:
        """The labels: a validation split takes its share of each class."""
        return self.labels

    def subset(self, indices: Tensor) -> ImageFiles:
        """The images at ``indices`` (int64), in that order."""
        return ImageFiles(self.root, self.files[indices.numpy()], self.labels[indices], self.classes)

    def name(self, index: int) -> str:
        """The path of image ``index`` within ``root``."""
        return self.files[index].decode()

    def read(self, index: int) -> Sample:
        """Image ``index`` (3, H, W) uint8 and its label (); raises CorruptImageError."""
        return decode_image(read_bytes(self.root / self.name(index))), self.labels[index]


def load_image_files(
    root: str | os.PathLike[str],
    splits: Sequence[str] = ("train", "val"),
    *,
    verify: bool = True,
    skip_corrupt: bool = False,
    cache: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[ImageFiles, ...]:
    """List the images ``root/<split>/<class>/**/*.{jpg,png,…}`` of splits, and see that all can be read.

    Reading all of ImageNet once takes minutes, and shows every corrupt image before training begins instead
    of one after hours. What came of it is kept in the cache folder, under a name that tells the files' names,
    sizes and times.

    Args:
        root: The folder; ImageNet's as torchvision's ``ImageNet`` leaves it, with the validation images in
            class folders.
        splits: Those to return. Where there is no ``"val"``, a folder ``test`` is taken for it, unless it is
            asked for as well; where there is neither, pass ``["train"]`` and draw one with
            :func:`split_validation`. Pass ``["."]`` where the class folders lie in ``root`` itself.
        verify: Read all images now. Otherwise a corrupt one stops the training, named, when it is met.
        skip_corrupt: Leave out images that cannot be read, with a warning, instead of stopping.
        cache: The cache folder; by default the environment variable ``MGIC_DATA``, or else ``data`` in
            the current folder.
        workers: Processes that verify; 0: none but this one; None: one a core, or none where files are few.
        progress: Show progress bars, if stderr is a terminal.

    Returns:
        One :class:`ImageFiles` a split, all with the classes of the first.

    Raises:
        FileNotFoundError: If a split's folder is missing.
        ValueError: If a split holds no images in class folders, has a class without any, or other classes
            than the first.
        CorruptImageError: If images cannot be read; the error's ``problems`` lists all of them.
    """
    if skip_corrupt and not verify:
        raise ValueError("skip_corrupt leaves out what verify finds; pass verify=True with it")
    found: list[ImageFiles] = []
    problems: list[str] = []
    total = 0
    for split in splits:
        others = ["test"] if split == "val" and "test" not in splits else []
        split = next((name for name in (split, *others) if (Path(root) / name).is_dir()), split)
        folder = Path(root) / split
        if not folder.is_dir():
            other = "".join(f" or {Path(root) / name}" for name in others)
            raise FileNotFoundError(
                f"there is no folder {folder}{other}; the layout is {root}/<split>/<class>/*.jpg"
            )
        files = _list(folder)
        if found:
            check_classes(folder, files.classes, found[0].root, found[0].classes)
        total += len(files)
        if verify:
            name = f"{folder.resolve().parent.name}-{folder.resolve().name}".lower()
            record = cache_file(cache_folder(cache), name, "image files", EDITION, fingerprint(folder))
            files, bad = check_files(files, record, folder, workers=workers, progress=progress)
            problems += [f"{split}/{line}" for line in bad]
        found.append(files)
    raise_or_warn(problems, total, root, skip_corrupt)
    return tuple(found)


def train_transform(
    size: int = 224,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    flip: bool = True,
    rand_augment: int | None = None,
    erase: float = 0.0,
) -> v2.Transform:
    """The training transform of a :class:`FileLoader`: torchvision's random resized crop and more.

    Args:
        size: Side of the square that comes out, in pixels.
        scale: The share of the image's area that is kept, uniform in this range.
        flip: Mirror half of the images, left to right.
        rand_augment: Magnitude of RandAugment's two operations, 0 … 30, customarily 9; None: off.
        erase: Share of the images of which a rectangle is blackened; 0: off.
    """
    steps: list[v2.Transform] = [v2.RandomResizedCrop(size, scale=scale, antialias=True)]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if rand_augment is not None:
        steps.append(v2.RandAugment(magnitude=rand_augment, interpolation=v2.InterpolationMode.BILINEAR))
    if erase:
        steps.append(v2.RandomErasing(erase))
    return v2.Compose(steps)


def eval_transform(size: int = 224, resize: int | None = None) -> v2.Transform:
    """The evaluation transform: the shorter side is brought to ``resize``, the centre cut out.

    Args:
        size: Side of the square that comes out, in pixels.
        resize: Of the shorter side; None: 256 for 224, as is customary, and in proportion for others.
    """
    resize = size * 256 // 224 if resize is None else resize
    return v2.Compose([v2.Resize(resize, antialias=True), v2.CenterCrop(size)])


def _list(folder: Path) -> ImageFiles:
    classes = sorted(
        entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name)
    )
    places = {name: label for label, name in enumerate(classes)}
    names = [name for name in list_files(folder) if "/" in name and is_image(name)]
    labels = [places[name.partition("/")[0]] for name in names]
    if not names:
        raise ValueError(f"{folder} holds no images in class folders; the layout is {folder}/<class>/*.jpg")
    present = set(labels)
    check_filled(folder, [name for name, label in places.items() if label not in present], "images")
    return ImageFiles(folder, as_bytes(tuple(names)), torch.tensor(labels), tuple(classes))
