"""How the C library hands memory back, which decides how fast small networks train on a CPU."""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt, from glibc's <malloc.h>.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
NEVER, LARGE = -1, 2**30  # bytes


def keep_memory() -> bool:
    """Let the process keep what it frees, so that the next step finds its memory in place.

    By default glibc returns large tensors to the kernel as soon as they are freed, and at each step the
    kernel clears every page anew, which costs some per cent of the time. Call this once, ahead of training
    on the CPU; the training scripts do. Peak memory stays as it is; between steps the process looks as large
    as at its peak. Other C libraries are left alone.

    Returns:
        Whether the C library took it.
    """
    return set_malloc(TRIM_THRESHOLD, NEVER) and set_malloc(MMAP_THRESHOLD, LARGE)


def set_malloc(name: int, size: int) -> bool:
    """Set a parameter of glibc's mallopt, and return whether the C library took it."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and mallopt(name, size) == 1
