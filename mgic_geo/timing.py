"""Steps that take turns, timed one by one; what is known of their times."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

if TYPE_CHECKING:
    from torch.utils.benchmark import Measurement

__all__ = ["Clock", "Ratio", "Step", "clock_by", "clock_of", "interleave", "quartiles", "ratio_of"]

Step = Callable[[], object]
Clock = Callable[[Step, int], float]
"""``clock(step, number)``: seconds that ``number`` calls of the step take together."""
Name = TypeVar("Name", bound=Hashable)

LEAST_SECONDS = 0.02
"""A timing repeats shorter steps until it has lasted about this long."""
LEAST_ROUNDS = 3
"""Rounds that are run whatever time they take."""


class Ratio(NamedTuple):
    """How many times as long one step takes as another: of the medians, and the quartiles over rounds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_figure(self.value)} × ({_figure(self.low)} to {_figure(self.high)})"


def clock_of(device: str, kind: str = "wall") -> Clock:
    """The clock that fits: CUDA's events, the wall's, or with ``"cpu"`` the processor time of all threads."""
    if device.startswith("cuda"):
        return _events
    return clock_by({"wall": time.perf_counter, "cpu": time.process_time}[kind])


def clock_by(seconds: Callable[[], float]) -> Clock:
    """The clock that reads ``seconds``, such as :func:`time.perf_counter`."""

    def clock(step: Step, number: int) -> float:
        start = seconds()
        for _ in range(number):
            step()
        return seconds() - start

    return clock


def interleave(
    steps: Mapping[Name, Step], rounds: int, clock: Clock, limit: float = math.inf
) -> dict[Name, Measurement]:
    """Let the steps take turns, downwards in one round and upwards in the next.

    :meth:`torch.utils.benchmark.Timer.timeit` calls its statement twice before it times it, each time. Of
    steps of seconds that would be most of the run, so the loop is here, and the times are torch's
    :class:`~torch.utils.benchmark.Measurement`. Each step warms up twice, once for all rounds.

    Args:
        steps: By name.
        rounds: Timings of each step.
        clock: See :func:`clock_of`.
        limit: Seconds of wall time behind the warm-up after which no round begins; three run all the same.

    Returns:
        By name, a time a round, in order: ``times`` of one measurement belong to those of another.
    """
    # Here, as it loads torch's builder of extensions, which logs about CUDA on machines without a GPU.
    from torch.utils.benchmark import Measurement, TaskSpec

    repeats = {}
    for name, step in steps.items():
        step()
        repeats[name] = max(1, math.ceil(LEAST_SECONDS / max(clock(step, 1), LEAST_SECONDS / 100)))
    raw: dict[Name, list[float]] = {name: [] for name in steps}
    order, start = list(steps), time.perf_counter()
    for round_ in range(rounds):
        if round_ >= LEAST_ROUNDS and time.perf_counter() - start > limit:
            break
        for name in order:
            raw[name].append(clock(steps[name], repeats[name]))
        order.reverse()
    threads = torch.get_num_threads()
    return {
        name: Measurement(repeats[name], times, TaskSpec(stmt=str(name), setup="", num_threads=threads))
        for name, times in raw.items()
    }


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile, within the values' range; of one value that value."""
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def ratio_of(slow: Measurement, fast: Measurement) -> Ratio:
    """How many times as long ``slow`` takes; both come from the same :func:`interleave`."""
    rounds = [a / b for a, b in zip(slow.times, fast.times, strict=True)]
    return Ratio(slow.median / fast.median, *quartiles(rounds))


def _events(step: Step, number: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(number):
        step()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def _figure(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
