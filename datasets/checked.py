"""Reading every file of a data set once, before training, to name all that cannot be used."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .cachefile import Content, make_once, progress_bar
from .cores import usable_cores
from .file_loader import Files
from .hdf5 import opened_hdf5, read_arrays
from .problems import CorruptImageError, corrupt

_CHUNK = 32  # files a worker takes at a time


class DivisibleFiles(Files, Protocol):
    """Files of which some can be left out."""

    def subset(self, indices: Tensor) -> Self:
        """The samples at ``indices`` (int64), in that order."""
        ...


FilesT = TypeVar("FilesT", bound=DivisibleFiles)


def check_files(
    files: FilesT,
    record: Path,
    where: object,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> tuple[FilesT, list[str]]:
    """Read all samples, unless the file ``record`` says what came of it before.

    Args:
        files: The samples.
        record: The HDF5 file that keeps what was found; its name must tell the files it is about.
        where: What the data set is called in messages.
        workers: Processes that read; 0: none but this one; None: one a core, or none where files are few.
        progress: Show a progress bar, if stderr is a terminal.

    Returns:
        The samples that can be used, in their order, and what is wrong with the others, each by name.

    Raises:
        CorruptImageError: If none can be used; the error's ``problems`` lists all of them.
    """
    problems, _ = make_once(record, partial(_check, files, workers, progress))
    with opened_hdf5(record) as opened:
        (bad,) = read_arrays(opened, ["bad/indices"])
    if len(bad) == len(files):
        raise corrupt(problems, where, "Nothing is left to load.")
    usable = torch.ones(len(files), dtype=torch.bool)
    usable[torch.from_numpy(bad)] = False
    return files.subset(usable.nonzero()[:, 0]) if problems else files, problems


def _check(files: Files, workers: int | None, progress: bool) -> Content:
    if workers is None:
        workers = usable_cores() if len(files) > 1000 else 0
    problems: dict[int, str] = {}
    loader = DataLoader(
        _Problems(files),
        batch_size=_CHUNK,
        num_workers=workers,
        collate_fn=list,
        generator=torch.Generator(),
    )
    with progress_bar("all images once", progress, len(files)) as bar:
        for chunk in loader:
            problems |= {index: problem for index, problem in chunk if problem is not None}
            bar.update(len(chunk))
    found = [f"{files.name(index)}: {problem}" for index, problem in problems.items()]
    return {"bad": {"indices": np.array(list(problems), np.int64)}}, {}, found, len(files)


class _Problems(Dataset[tuple[int, str | None]]):
    """What is wrong with each sample, or None."""

    def __init__(self, files: Files) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[int, str | None]:
        try:
            self.files.read(index)
        except CorruptImageError as error:
            return index, str(error)
        return index, None
