"""HDF5 files of named arrays: written whole or not at all, read with errors that name what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ..files import replacing

TEXT = h5py.string_dtype()


@contextmanager
def opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open ``path`` for reading, and close it again, so that no handle outlives a fork.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no HDF5 file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} cannot be opened as HDF5 ({error}); delete it or fetch it again") from error
    with file:
        yield file


def read_arrays(file: h5py.File, names: list[str]) -> list[NDArray]:
    """The arrays of these names (``group/name``); a ValueError lists those the file lacks."""
    found = {name: part for name in names if isinstance(part := file.get(name), h5py.Dataset)}
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{file.filename} lacks {', '.join(missing)}; it must hold {', '.join(names)}")
    return [np.asarray(part[()]) for part in found.values()]


def read_text(values: object) -> tuple[str, ...]:
    """An array of strings or bytes as strings."""
    return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in np.ravel(np.asarray(values)))


def as_bytes(names: tuple[str, ...]) -> NDArray[np.bytes_]:
    """Names of files as one array of bytes of fixed length, which is read fast.

    Raises:
        ValueError: If a name is not UTF-8, which HDF5's texts must be.
    """
    if odd := [
        name for name in names if not name.isascii() and name != name.encode(errors="ignore").decode()
    ]:
        raise ValueError(f"the file name {os.fsencode(odd[0])!r} is not UTF-8; rename the file")
    return np.array([name.encode() for name in names], dtype=bytes)


def write_hdf5(
    path: Path, groups: Mapping[str, Mapping[str, NDArray]], attributes: Mapping[str, object]
) -> None:
    """Write arrays by group and name, with root attributes.

    The file is written beside ``path``, then renamed, so that ``path`` is always whole; equal arrays give
    equal bytes.

    Raises:
        OSError: If it cannot be written.
    """
    size = sum(array.nbytes for arrays in groups.values() for array in arrays.values())
    try:
        with replacing(path) as temporary:
            _claim_space(temporary, size)
            with h5py.File(temporary, "w", libver=("v108", "v108")) as file:
                for name, value in attributes.items():
                    file.attrs[name] = value
                for group_name, arrays in groups.items():
                    group = file.create_group(group_name, track_times=False)
                    for name, array in arrays.items():
                        group.create_dataset(name, data=array, track_times=False)
                file.flush()
    except (OSError, RuntimeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise OSError(f"cannot write {path}: {cause}; is the disk full?") from error


def _claim_space(path: Path, size: int) -> None:
    """Raise an OSError unless ``size`` bytes fit: of each array that does not h5py shows a traceback."""
    if size and hasattr(os, "posix_fallocate"):
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
