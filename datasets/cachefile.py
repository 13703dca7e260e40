"""Cache files: where they lie, what they are called, and making each once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .hdf5 import TEXT, opened_hdf5, read_text, write_hdf5
from .lock import locked

# What goes into a cache file: arrays by group and name, root attributes, what had to be left out, and the
# number of images, these included.
Content = tuple[Mapping[str, Mapping[str, NDArray]], Mapping[str, object], Sequence[str], int]


def cache_folder(cache: str | os.PathLike[str] | None) -> Path:
    """``cache``, or by default the environment variable ``MGIC_DATA``, or else ``data``."""
    return Path(cache if cache is not None else os.environ.get("MGIC_DATA", "data"))


def cache_file(folder: Path, name: str, *made_from: object) -> Path:
    """The file of ``name`` in ``folder``; its name changes with all that it is made from."""
    key = hashlib.sha256(repr(made_from).encode()).hexdigest()[:12]
    return folder / f"{name}-{key}.h5"


def make_once(file: Path, make: Callable[[], Content]) -> tuple[list[str], int]:
    """Write what ``make`` returns to the HDF5 file ``file``, unless it is there.

    A kill leaves no half file behind; making starts again. One process makes it and others wait.

    Args:
        file: The file.
        make: Decodes the data set; its problems go to the root attribute ``skipped``.

    Returns:
        The problems, of now or of when ``file`` was made, and the number of images.
    """
    if not file.exists():
        with locked(file):
            if not file.exists():
                # Written even with problems, so that a second run that skips them, or not, is quick.
                groups, attributes, problems, total = make()
                skipped = {"skipped": np.array(problems, TEXT), "total": total}
                write_hdf5(file, groups, {**attributes, **skipped})
    with opened_hdf5(file) as opened:
        # A file of an earlier version, without problems, lacks the total.
        return list(read_text(opened.attrs["skipped"])), int(np.asarray(opened.attrs.get("total", 0)))


def progress_bar(what: str, progress: bool, total: int | None = None) -> tqdm:
    """A bar that counts ``what``; shown if asked for and stderr is a terminal."""
    return tqdm(total=total, desc=f"reading {what}", unit="file", disable=None if progress else True)
