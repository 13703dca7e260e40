"""Images small enough to be kept in memory: CIFAR-10 and CIFAR-100 as published, or class folders."""

from __future__ import annotations

import os
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .cachefile import Content, cache_file, cache_folder, make_once
from .class_folders import decode_class_folders
from .decode import EDITION
from .download import download
from .files import fingerprint
from .hdf5 import as_bytes, opened_hdf5, read_arrays, read_text
from .images import Images
from .lock import locked
from .problems import raise_or_warn
from .sources import SPLITS

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

ONE_SIZE = (
    "bring all images to one size, or read them from a folder with load_image_files, which takes any "
    "(experiments/imagenet.py on the command line)"
)
LAYOUT = 1  # part of every cache's name: raise it when the same files would give other images

# The official files: the folder they unpack to, and the archive's MD5.
OFFICIAL = {
    "cifar10": ("cifar-10-batches-py", "c58f30108f718f92721af3b95e74349a"),
    "cifar100": ("cifar-100-python", "eb9058c3a382ffc7106e4002c42a8d85"),
}


def load_images(
    data: str | os.PathLike[str] = "cifar10",
    *,
    cache: str | os.PathLike[str] | None = None,
    skip_corrupt: bool = False,
    progress: bool = True,
) -> tuple[Images, Images]:
    """Load the training and test images of a data set, all of one size, decoding its files the first time.

    What was decoded is kept in an HDF5 file of the cache folder. Its name tells the files it was made from,
    so changed data is decoded anew. Once it is there, the files of a named data set may be deleted.

    Args:
        data: ``"cifar10"`` or ``"cifar100"``, downloaded to the cache folder; or a path: a folder, zip or
            tar (.gz, .xz, …) of class folders ``NAME/{train,test}/<class>/*.{jpg,png,…}`` (where there is no
            ``test``, ``val`` is taken for it), or a folder with torchvision's files (``cifar-10-batches-py``
            or ``cifar-100-python``) in it. Write ``./cifar10`` for a folder of that name.
        cache: The cache folder; by default the environment variable ``MGIC_DATA``, or else ``data`` in
            the current folder.
        skip_corrupt: Leave out images that cannot be used, with a warning, instead of stopping.
        progress: Show progress bars, if stderr is a terminal.

    Returns:
        (train, test) images.

    Raises:
        FileNotFoundError: If ``data`` is neither a known name nor a path that exists.
        ValueError: If what ``data`` names is not in its layout, or has a class without images.
        CorruptImageError: If images cannot be decoded, or their size is not that of the others; the error's
            ``problems`` lists all of them.
        DownloadError: If the download failed; the message says what to put where instead.
    """
    folder, name, path = cache_folder(cache), str(data), Path(data)
    if name in OFFICIAL:
        file = cache_file(folder, name, LAYOUT, OFFICIAL[name][1])
        make = partial(_downloaded, name, folder, progress)
    elif not path.exists():
        raise FileNotFoundError(
            f"there is no file or folder {path}, nor a data set of that name (known: {', '.join(OFFICIAL)})"
        )
    else:
        # "cifar10.tar.xz" is called cifar10, as the folder would be.
        name = path.resolve().name.partition(".")[0].lower()
        file = cache_file(folder, name, LAYOUT, EDITION, fingerprint(path))
        kinds = [kind for kind, (unpacked, _) in OFFICIAL.items() if (path / unpacked).is_dir()]
        if len(kinds) > 1:
            raise ValueError(f"{path} holds both CIFAR-10 and CIFAR-100; pass a folder with one of them")
        if kinds:
            make = partial(_read_official, kinds[0], path)
        else:
            make = partial(decode_class_folders, path, progress)
    raise_or_warn(*make_once(file, make), data, skip_corrupt, ONE_SIZE)
    train, test = (_read(file, split) for split in SPLITS)
    return train, test


def _read(file: Path, split: str) -> Images:
    with opened_hdf5(file) as opened:
        images, labels, names = read_arrays(
            opened, [f"{split}/{part}" for part in ("images", "labels", "names")]
        )
        classes = read_text(opened.attrs["classes"])
    return Images(torch.from_numpy(images), torch.from_numpy(labels), read_text(names), classes)


def _downloaded(name: str, folder: Path, progress: bool) -> Content:
    unpacked, md5 = OFFICIAL[name]
    kind = _torchvision(name)
    archive = folder / kind.filename
    with locked(archive):
        if not (folder / unpacked).is_dir():
            download(kind.url, archive, md5=md5, progress=progress)
        return _read_official(name, folder)


def _torchvision(name: str) -> type[CIFAR10]:
    from torchvision import datasets  # slow to import, and not needed for class folders or from the cache

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]


def _read_official(name: str, folder: Path) -> Content:
    kind, groups, classes = _torchvision(name), {}, []
    with warnings.catch_warnings():
        # Not ours to mend: how the official pickles spell a dtype, and how torchvision unpacks an archive.
        warnings.filterwarnings("ignore", r"dtype\(\): align")
        warnings.filterwarnings("ignore", ".*filter.*tar", DeprecationWarning)
        for split in SPLITS:
            try:
                # "Download" finds the archive there, verifies and unpacks it, and then each file's checksum.
                part = kind(folder, train=split == "train", download=(folder / kind.filename).exists())
            except RuntimeError as error:
                raise ValueError(
                    f"{folder / kind.base_folder} is not complete, or not the official files: delete it, "
                    f"and unpack {kind.url} again"
                ) from error
            classes = part.classes
            groups[split] = {
                "images": np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)),
                "labels": np.array(part.targets, np.int64),
                "names": as_bytes(tuple(f"{number:05d}" for number in range(len(part.data)))),
            }
    return groups, {"classes": classes}, [], sum(len(group["names"]) for group in groups.values())
