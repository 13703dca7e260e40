"""Which of two ways is the faster here, found by trying."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import perf_counter

import torch
from torch import Tensor

__all__ = ["faster"]

_RUNS = 3
_CHOSEN: dict[Hashable, int] = {}


def faster(key: Hashable, *ways: Callable[[], Tensor]) -> Tensor:
    """The result of the way that took the least time when this key came first; all give the same.

    Args:
        key: What the times depend on: a device, sizes.
        *ways: Each is run four times then, once to warm up.
    """
    if key not in _CHOSEN:
        times = [_seconds(way) for way in ways]
        _CHOSEN[key] = times.index(min(times))
    return ways[_CHOSEN[key]]()


def _seconds(way: Callable[[], Tensor]) -> float:
    on_gpu = way().is_cuda  # compiles what is not compiled yet
    times = []
    for _ in range(_RUNS):
        if on_gpu:
            torch.cuda.synchronize()
        start = perf_counter()
        way()
        if on_gpu:
            torch.cuda.synchronize()
        times.append(perf_counter() - start)
    return min(times)
