"""Which of two ways is the faster here, found by trying."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

__all__ = ["faster"]

_RUNS = 3
_LONG = 0.05
"""Seconds of a run that need not be measured again."""
_CHOSEN: dict[Hashable, int] = {}


def faster(key: Hashable, *ways: Callable[[], Tensor]) -> Tensor:
    """The result of the way that took the least time when this key came first; all give the same.

    But for what ties may be: after ``torch.use_deterministic_algorithms(True)`` it is always the first.

    Args:
        key: What the times depend on: a device, sizes.
        *ways: Each is run then, once to warm up and once or, where that is short, three times more; one that
            needs more memory than there is has lost.
    """
    if torch.are_deterministic_algorithms_enabled():
        return ways[0]()
    if key not in _CHOSEN:
        times = [_seconds(way) for way in ways]
        if math.isinf(min(times)):
            return ways[0]()  # raises
        _CHOSEN[key] = times.index(min(times))
    return ways[_CHOSEN[key]]()


def _seconds(way: Callable[[], Tensor]) -> float:
    try:
        device = way().device  # compiles what is not compiled yet
        wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
        times = []
        while len(times) < _RUNS and sum(times) < _LONG:
            wait()
            start = perf_counter()
            way()
            wait()
            times.append(perf_counter() - start)
        return min(times)
    except torch.OutOfMemoryError:
        return math.inf
