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
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return all(mallopt(name, size) == 1 for name, size in ((TRIM_THRESHOLD, NEVER), (MMAP_THRESHOLD, LARGE)))
