"""Competitors that take turns, beside the floor of what they do and beside the bars."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import torch

from mgic_geo.benchmark.config import Config
from mgic_geo.benchmark.floor import Work
from mgic_geo.benchmark.report import Report, Verdict
from mgic_geo.text_table import markdown
from mgic_geo.timing import Step, interleave, quartiles, ratio_of

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
        median, ratio = statistics.median(own), ratio_of(own, times[than])
        floor = entry.work.floor(config.rates(entry.dtype)) if entry.work else None
        beside = Cell("" if entry.name == than else f"{ratio}")
        if entry.bar is not None:
            what = f"{title}: {than} against {entry.name}"
            beside.judge(Verdict(what, ratio.value, entry.bar, measured=f"{ratio}"))
        if than not in (entry.name, entries[0].name):
            beside.text += f" (as long as {than})"
        over = Cell(f"{median / floor:.1f} ×" if floor else "")
        if floor and entry.floor_bar is not None:
            what = f"{title}: {entry.name} over its floor"
            over.judge(Verdict(what, median / floor, entry.floor_bar, True, over.text))
        low, high = quartiles(own)
        row = Row(
            comparison=title,
            model=entry.name,
            median_ms=1e3 * median,
            quartiles_ms=(1e3 * low, 1e3 * high),
            rounds=len(own),
            than=than,
            ratio=ratio.value,
            ratio_quartiles=(ratio.low, ratio.high),
            bar=entry.bar,
            floor_ms=1e3 * floor if floor else None,
            times_floor=median / floor if floor else None,
        )
        spread = " to ".join(map(milliseconds, row.quartiles_ms))
        shown = milliseconds(row.floor_ms) if row.floor_ms else ""
        rows.append(asdict(row))
        lines.append([entry.name, milliseconds(row.median_ms), spread, beside.text, shown, over.text])
        verdicts += beside.verdicts + over.verdicts
    head = ["step", "median ms", "quartiles", f"as long as {entries[0].name}", "floor ms", "over its floor"]
    return Report(title, rows, markdown(head, lines), verdicts)


@dataclass
class Cell:
    """A figure of the table, with what was made of it."""

    text: str
    verdicts: list[Verdict] = field(default_factory=list)

    def judge(self, verdict: Verdict) -> None:
        """Put the bar behind the figure."""
        self.verdicts.append(verdict)
        self.text += f"; {verdict.words}"


def milliseconds(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
