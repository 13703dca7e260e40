"""The files of a data set that lies in a folder, a zip or a tar, read in one pass without unpacking."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from .problems import CorruptImageError

Read = Callable[[], bytes]

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError)


def fingerprint(path: Path) -> str:
    """Return a text that changes when the files at ``path`` do.

    It is made from an archive's content, and from the names, sizes and modification times in a folder.

    Raises:
        FileNotFoundError: there is nothing at ``path``.
    """
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"there is no file or folder {path}")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    stamps = []
    for name in list_files(path):
        try:
            stat = os.stat(path / name)
        except OSError:  # a link to nothing: whoever reads the file says so, by name
            stamps.append((name, None, None))
        else:
            stamps.append((name, stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(repr(stamps).encode()).hexdigest()


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        CorruptImageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptImageError(f"cannot be read ({error})") from error


def list_files(folder: Path) -> list[str]:
    """Return the paths within ``folder`` of all files in it, sorted.

    Links are followed. Hidden files and folders (``.DS_Store``, ``.ipynb_checkpoints``) are left out.
    """
    names = []
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]  # the walk goes into what is left
        names += [os.path.relpath(os.path.join(where, name), folder) for name in files if not is_hidden(name)]
    return sorted(name.replace(os.sep, "/") for name in names)


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is hidden, or what a Mac adds to archives."""
    return name.startswith(".") or name == "__MACOSX"  # with a shadow file "__MACOSX/…/._name" for each file


def known_suffix(path: Path, known: Sequence[str]) -> str:
    """Return the suffix of a file, in small letters.

    Raises:
        ValueError: it is none of ``known``.
    """
    suffix = path.suffix.lower()
    if suffix not in known:
        raise ValueError(
            f"files of type {suffix or '(no suffix)'} are not read; convert it to one of {' '.join(known)}"
        )
    return suffix


def read_files(path: Path, wanted: Callable[[PurePosixPath], bool]) -> Iterator[tuple[PurePosixPath, Read]]:
    """Give the path within ``path`` of each file that ``wanted`` accepts, and a function that reads it.

    The function raises CorruptImageError if a file of a folder cannot be read; call it before the next file.

    Args:
        path: a folder, a zip, or a tar, compressed or not. A tar comes in its own order, so that it is
            decompressed once.
        wanted: whether a file is to be read, by its path; hidden ones, and those in hidden folders, are not.

    Raises:
        ValueError: ``path`` is no whole archive.
    """
    if path.is_dir():
        for name in map(PurePosixPath, list_files(path)):
            if _shown(name) and wanted(name):
                yield name, partial(read_bytes, path / name)
        return
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in sorted(archive.namelist()):
                    name = PurePosixPath(entry)
                    if not entry.endswith("/") and _shown(name) and wanted(name):
                        yield name, partial(bytes, archive.read(entry))
        else:
            with tarfile.open(path) as archive:
                for member in archive:
                    name = PurePosixPath(member.name)
                    if member.isfile() and _shown(name) and wanted(name):
                        content = archive.extractfile(member)
                        assert content is not None  # it is None for what is no file
                        yield name, partial(bytes, content.read())
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is no whole zip or tar file ({error}); if it was downloaded, fetch it again"
        ) from error


def _shown(name: PurePosixPath) -> bool:
    return not any(map(is_hidden, name.parts))
