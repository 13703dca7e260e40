"""Errors that the person at the command line can mend, and files that cannot be written."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mgic_geo.files import replacing

GRACE = 10.0  # seconds in which an error of all ranks comes to rank 0 as well, and its launcher sees it


class UsageError(Exception):
    """Something the person at the command line can mend: shown as one message, without a traceback."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the process with status 2 and the bare message when a :class:`UsageError` is raised inside.

    Most errors come on all ranks, and rank 0 says them. An error that another rank has alone is said after a
    wait, by :func:`_let_rank_0_speak`.
    """
    try:
        yield
    except UsageError as error:
        if global_rank() > 0:
            _let_rank_0_speak()
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from error


def _let_rank_0_speak() -> None:
    """Wait for the end that follows an error of rank 0; return if none comes."""
    parent, end = os.getppid(), time.monotonic() + GRACE
    while time.monotonic() < end:
        time.sleep(0.1)  # torchrun ends this process here
        if os.getppid() != parent:  # Lightning's launcher does not, but this process is a child of rank 0
            raise SystemExit(2)


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Turn errors of bad values and bad files inside into a :class:`UsageError` that begins with ``what``."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UsageError(f"{what}: {error}") from error


def write_text(path: Path, text: str, flag: str = "--output") -> None:
    """Write a text file whole or not at all; errors are those of ``flag``, which gave the place."""
    with blaming(flag), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_target(flag: str, path: Path | None) -> None:
    """Raise :class:`UsageError` if no file could be written to ``path``: said before the work, not after."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{flag} {path} is a folder; name a file in it")
    _check_place(flag, path, path.absolute().parent)


def check_folder(flag: str, path: Path) -> None:
    """Raise :class:`UsageError` if no files could be written into the folder ``path``, made where needed."""
    _check_place(flag, path, path.absolute())


def _check_place(flag: str, path: Path, folder: Path) -> None:
    above = next(place for place in (folder, *folder.parents) if place.exists())
    if not above.is_dir():
        raise UsageError(f"{flag} {path}: {above} is a file, not a folder; choose another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{flag} {path}: nothing may be written into {above}; choose another place")


def global_rank() -> int:
    """Return the rank of this process, as torchrun or Lightning's launcher says; 0 without one."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
