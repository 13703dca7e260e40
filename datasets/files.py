"""The files of a data set that lies in a folder, a zip or a tar, read in one pass without unpacking."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from .problems import CorruptImageError

Read = Callable[[], bytes]

# A Mac adds a shadow file "__MACOSX/…/._name" for each file. A part "." is no name: "./train/cat/1.png".
_HIDDEN = re.compile(r"(^|/)(\.(?!/|$)|__MACOSX(/|$))")

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError)


def fingerprint(path: Path) -> str:
    """A text that changes when the files at ``path`` do.

    It is made from an archive's content, and from the names, sizes and modification times in a folder, its
    empty folders included.

    Raises:
        FileNotFoundError: If there is nothing at ``path``.
    """
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"there is no file or folder {path}")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    stamps = []
    for name in list_entries(path):
        try:
            stat = os.stat(path / name)
        except OSError:  # a link to nothing: whoever reads the file says so, by name
            stamps.append((name, None, None))
        else:
            stamps.append((name, stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(repr(stamps).encode()).hexdigest()


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        CorruptImageError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptImageError(f"cannot be read ({error})") from error


def list_files(folder: Path) -> list[str]:
    """The paths within ``folder`` of all files in it, sorted.

    Links are followed. Hidden files and folders (``.DS_Store``, ``.ipynb_checkpoints``) are left out.
    """
    return [name for name in list_entries(folder) if not name.endswith("/")]


def list_entries(folder: Path) -> list[str]:
    """The paths of :func:`list_files`, and those of empty folders, which end in a slash as in zips."""
    names = []
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]  # the walk goes into what is left
        files = [name for name in files if not is_hidden(name)]
        names += [os.path.relpath(os.path.join(where, name), folder) for name in files]
        if not files and not folders:
            names.append(os.path.relpath(where, folder) + "/")
    return sorted(name.replace(os.sep, "/") for name in names)


def is_hidden(path: str) -> bool:
    """Tell whether a file or folder is hidden, lies in a hidden folder, or is what a Mac adds to archives."""
    return _HIDDEN.search(path) is not None


def known_suffix(path: Path, known: Sequence[str]) -> str:
    """The suffix of a file, in small letters.

    Raises:
        ValueError: If it is none of ``known``.
    """
    suffix = path.suffix.lower()
    if suffix not in known:
        raise ValueError(
            f"files of type {suffix or '(no suffix)'} are not read; convert it to one of {' '.join(known)}"
        )
    return suffix


def read_files(
    path: Path, wanted: Callable[[PurePosixPath], bool], folders: set[PurePosixPath] | None = None
) -> Iterator[tuple[PurePosixPath, Read]]:
    """Give the path within ``path`` of each file that ``wanted`` accepts, and a function that reads it.

    The function raises CorruptImageError if a file of a folder cannot be read; call it before the next file.

    Args:
        path: A folder, a zip, or a tar, compressed or not. A tar comes in its own order, so that it is
            decompressed once.
        wanted: Whether a file is to be read, by its path; hidden ones, and those in hidden folders, are not.
        folders: Takes the paths of all folders that hold files, wanted or not, or nothing.

    Raises:
        ValueError: If ``path`` is no whole archive.
    """
    in_folder = path.is_dir()
    try:
        for entry, read in _entries(path):
            name, is_folder = PurePosixPath(entry), entry.endswith("/")
            if is_hidden(entry):
                continue
            if folders is not None:
                folders.add(name if is_folder else name.parent)
            if not is_folder and wanted(name):
                # A file of an archive is read at once, so that damage is that of the archive.
                yield name, read if in_folder else partial(bytes, read())
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is no whole zip or tar file ({error}); if it was downloaded, fetch it again"
        ) from error


def _entries(path: Path) -> Iterator[tuple[str, Read]]:
    """Give the paths of files, and of folders with a slash at the end, and a function that reads the file."""
    if path.is_dir():
        for name in list_entries(path):
            yield name, partial(read_bytes, path / name)
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                yield name, partial(archive.read, name)
    else:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and (content := archive.extractfile(member)) is not None:
                    yield member.name, content.read
                elif member.isdir():
                    yield f"{member.name}/", bytes
