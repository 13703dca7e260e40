"""Competitors that take turns, beside the floor of what they do and beside the bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from mgic_geo.benchmark.config import Config
from mgic_geo.benchmark.floor import Work
from mgic_geo.benchmark.report import Report, Verdict, markdown
from mgic_geo.benchmark.timing import Step, interleave, quartiles, ratio_of

__all__ = ["Entry", "Row", "compare"]


@dataclass(frozen=True)
class Entry:
    """One competitor.

    Args:
        name: As the table calls it.
        step: What is timed.
        work: The least work of the function that it computes, whatever it does; None leaves the floor out.
        faster: Name of the entry, an earlier one, that should be faster; the first by default.
        bar: How many times faster, at least.
        floor_bar: How many times its floor its own time should be, at most.
        dtype: Of the products that the floor is measured by.
    """

    name: str
    step: Step
    work: Work | None = None
    faster: str | None = None
    bar: float | None = None
    floor_bar: float | None = None
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Row:
    """Times of one step in milliseconds, beside another's (``than``) and beside the floor.

    ``ratio`` is that of the medians, ``ratio_quartiles`` are those of the ratios round by round.
    """

    comparison: str
    model: str
    median_ms: float
    quartiles_ms: tuple[float, float]
    rounds: int
    than: str
    ratio: float
    ratio_quartiles: tuple[float, float]
    bar: float | None
    floor_ms: float | None
    times_floor: float | None


def compare(title: str, entries: Sequence[Entry], config: Config) -> Report:
    """Time the entries in turns; the first is the one the others are compared with."""
    times = interleave({e.name: e.step for e in entries}, config.rounds, config.timed, config.limit)
    rows, lines, verdicts = [], [], []
    for entry in entries:
        own, than = times[entry.name], entry.faster or entries[0].name
        ratio, median = ratio_of(own, times[than]), own.median
        low, high = quartiles(own.times)
        floor = entry.work.floor(config.rates(entry.dtype)) if entry.work else None
        beside = "" if entry.name == than else f"{ratio}"
        if len(entries) > 2 and beside and than != entries[0].name:
            beside += f" {than}"
        if entry.bar is not None:
            found = Verdict(
                f"{title}: {than} against {entry.name}", ratio.value, entry.bar, False, str(ratio)
            )
            verdicts.append(found)
            beside += f"; {found.words}"
        over = median / floor if floor else None
        beyond = f"{over:.1f} ×" if over else ""
        if over and entry.floor_bar is not None:
            found = Verdict(f"{title}: {entry.name} over its floor", over, entry.floor_bar, True, beyond)
            verdicts.append(found)
            beyond += f"; {found.words}"
        row = Row(
            title, entry.name, 1e3 * median, (1e3 * low, 1e3 * high), len(own.times), than, *ratio[:1],
            ratio[1:], entry.bar, 1e3 * floor if floor else None, over,
        )  # fmt: skip
        rows.append(asdict(row))
        lines.append(
            [
                entry.name,
                milliseconds(row.median_ms),
                f"{milliseconds(row.quartiles_ms[0])} to {milliseconds(row.quartiles_ms[1])}",
                beside,
                milliseconds(row.floor_ms) if row.floor_ms else "",
                beyond,
            ]
        )
    head = ["step", "median ms", "quartiles", f"as long as {entries[0].name}", "floor ms", "over its floor"]
    return Report(title, rows, markdown(head, lines), verdicts)


def milliseconds(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
