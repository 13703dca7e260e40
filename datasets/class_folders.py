"""Class folders of images in one folder or archive, decoded into tensors of one size."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .cachefile import Content, progress_bar
from .decode import decode_image, is_image
from .files import read_files
from .hdf5 import as_bytes
from .layout import check_classes, check_filled, check_one_root, subfolders
from .problems import CorruptImageError, corrupt, lines, odd_size
from .sources import SPLITS


@dataclass
class _Split:
    """What was found in the folders of one split: whose they are, their classes, and the images by class."""

    roots: set[tuple[str, ...]] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)
    images: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def arrays(self, classes: list[str]) -> dict[str, NDArray]:
        """The images, sorted, with the labels that ``classes`` give them, and their names."""
        keys = sorted(self.images)
        return {
            "images": torch.stack([self.images[key] for key in keys]).numpy(),
            "labels": np.array([classes.index(label) for label, _ in keys], np.int64),
            "names": as_bytes(tuple(f"{label}/{file}" for label, file in keys)),
        }


def decode_class_folders(path: Path, progress: bool) -> Content:
    """Decode the images ``NAME/{train,test}/<class>/*`` at ``path``.

    Where there is no ``test``, ``val`` is taken for it.

    Args:
        path: A folder, zip or tar.
        progress: Show a progress bar, if stderr is a terminal.

    Returns:
        A group a split, with ``images`` (S, 3, H, W), ``labels`` (S,) and ``names``; the attribute
        ``classes``; the problems; and the number of images, those with problems included.

    Raises:
        ValueError: If ``path`` is not in the layout, has a class without images, or its splits differ in
            their classes.
        CorruptImageError: If a split has no image without problems.
    """
    folders: set[PurePosixPath] = set()
    found = _read_splits(path, folders, progress)
    # Who keeps a split called val keeps it for what these scripts call test, unless there is a test as well.
    names = ("train", "val" if "val" in found and "test" not in found else "test")
    splits = {name: found[name] for name in names if name in found}
    check_one_root(path, roots := set().union(*(split.roots for split in splits.values())))
    if missing := [name for name in names if name not in splits]:
        raise ValueError(
            f"{path} holds no {' or '.join(missing)} images; the layout is "
            "NAME/{train,test}/<class>/*.jpg (or .png), and val may stand for test"
        )
    (root,) = roots
    for name, split in splits.items():
        check_filled(f"{path}/{name}", subfolders(folders, (*root, name)) - split.classes, "images")
    train, test = splits.values()
    check_classes(f"{path}/train", train.classes, f"{path}/{names[1]}", test.classes)
    _take_out_odd_sizes(splits)
    problems = lines(train.problems | test.problems)
    if missing := [name for name, split in splits.items() if not split.images]:
        raise corrupt(problems, path, f"No other {' or '.join(missing)} images are left.")
    classes = sorted(train.classes)
    groups = {name: split.arrays(classes) for name, split in zip(SPLITS, (train, test), strict=True)}
    return groups, {"classes": classes}, problems, len(train.images) + len(test.images) + len(problems)


def _read_splits(path: Path, folders: set[PurePosixPath], progress: bool) -> dict[str, _Split]:
    found: defaultdict[str, _Split] = defaultdict(_Split)
    with progress_bar(path.name, progress) as bar:
        for name, read in read_files(path, _in_split, folders):
            folder, label, file = name.parts[-3:]
            split = found[folder]
            split.roots.add(name.parts[:-3])
            split.classes.add(label)
            try:
                split.images[label, file] = decode_image(read())
            except CorruptImageError as error:
                split.problems[str(name)] = str(error)
            bar.update()
    return dict(found)


def _in_split(name: PurePosixPath) -> bool:
    return len(name.parts) >= 3 and name.parts[-3] in (*SPLITS, "val") and is_image(name.name)


def _take_out_odd_sizes(splits: dict[str, _Split]) -> None:
    """Turn the images that are not of the most frequent size into problems."""
    shapes = Counter(image.shape for split in splits.values() for image in split.images.values())
    for usual, _ in shapes.most_common(1):
        for name, split in splits.items():
            for label, file in [key for key, image in split.images.items() if image.shape != usual]:
                odd = split.images.pop((label, file))
                split.problems[f"{name}/{label}/{file}"] = odd_size(odd.shape, usual)
