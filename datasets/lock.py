"""A lock between processes that make the same file."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time make ``path``; others wait. The lock is a file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(path.name + ".lock"))  # let go when its process dies, however it dies
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # We are a worker importing the script of the process that holds the lock: it would never let go.
            raise RuntimeError(
                f"{path} is being made by the process that starts this worker. Worker processes import the "
                "running script: load data under `if __name__ == '__main__':`"
            ) from None
        _log.info("waiting for another process to finish %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
