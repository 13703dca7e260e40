"""Peak memory of one step, measured in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from mgic_geo.benchmark.machine import full_float32
from mgic_geo.memory import MMAP_THRESHOLD, set_malloc
from mgic_geo.timing import Step

__all__ = ["peak_memory"]

Build = Callable[[], tuple[Step, Step]]
"""Makes a small step that warms up, and the step that is measured."""


def peak_memory(build: Build, device: str = "cpu", threads: int | None = None) -> int:
    """Bytes by which one step exceeds what was held before it.

    On the CPU that is the growth of the peak resident size over the resident size before the step. The
    process is fresh, for one that keeps what it has freed would not grow; the small step beforehand loads
    what is loaded at the first call. Freed memory does not count, as far as the C library is glibc. On CUDA
    it is torch's count of allocated bytes.

    Args:
        build: Called in the fresh process, which imports it: a function of a module, or a
            :func:`functools.partial` of one.
        device: Where the steps run.
        threads: Threads of torch in the process; as many as here by default.

    Raises:
        RuntimeError: If the process fails; its own error stands on the standard error stream.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_measure, args=(theirs, build, device, threads or torch.get_num_threads())
    )
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process that measured memory ended with status {process.exitcode}") from None
    finally:
        process.join()
        ours.close()


def _measure(pipe: Connection, build: Build, device: str, threads: int) -> None:
    # Every larger tensor gets pages of its own, so that what is freed does not count as used.
    set_malloc(MMAP_THRESHOLD, 2**16)
    torch.set_num_threads(threads)
    full_float32()
    torch.manual_seed(0)
    warm_up, step = build()
    warm_up()
    pipe.send(growth(step, device))


def growth(step: Step, device: str) -> int:
    """Bytes by which the peak of this process during the step exceeds what it held before."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    before = _reset_peak()
    step()
    return max(0, _peak() - before)


def _reset_peak() -> int:
    """Let the peak be what is resident now, where the system can, and give it."""
    with contextlib.suppress(OSError):  # another system, or a container that forbids it
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak()


def _peak() -> int:
    """Largest resident size so far, in bytes.

    Linux's ``ru_maxrss`` will not do: a new process begins with the peak of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        if "VmHWM" in lines:
            return 1024 * int(lines["VmHWM"].split()[0])
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
