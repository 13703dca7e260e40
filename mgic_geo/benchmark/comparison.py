"""Competitors that take turns, beside the floor of what they do and beside the bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch.utils.benchmark import Measurement

from mgic_geo.benchmark.config import Config
from mgic_geo.benchmark.floor import Work
from mgic_geo.benchmark.report import Report, Verdict
from mgic_geo.text_table import markdown
from mgic_geo.timing import Ratio, Step, interleave, quartiles, ratio_of

__all__ = ["Entry", "Row", "compare", "cuda_entries"]


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
    first = entries[0].name
    rows, lines, verdicts = [], [], []
    for entry in entries:
        floor = entry.work.floor(config.rates(entry.dtype)) if entry.work else None
        row = _row(title, entry, entry.faster or first, times, floor)
        ratio, over = _ratio_cell(row, first), _floor_cell(row, entry.floor_bar)
        spread = " to ".join(map(milliseconds, row.quartiles_ms))
        shown = milliseconds(row.floor_ms) if row.floor_ms else ""
        rows.append(asdict(row))
        lines.append([row.model, milliseconds(row.median_ms), spread, ratio.text, shown, over.text])
        verdicts += ratio.verdicts + over.verdicts
    head = ["step", "median ms", "quartiles", f"as long as {first}", "floor ms", "over its floor"]
    return Report(title, rows, markdown(head, lines), verdicts)


def _row(title: str, entry: Entry, than: str, times: Mapping[str, Measurement], floor: float | None) -> Row:
    own = times[entry.name]
    median, (low, high), ratio = own.median, quartiles(own.times), ratio_of(own, times[than])
    return Row(
        comparison=title,
        model=entry.name,
        median_ms=1e3 * median,
        quartiles_ms=(1e3 * low, 1e3 * high),
        rounds=len(own.times),
        than=than,
        ratio=ratio.value,
        ratio_quartiles=(ratio.low, ratio.high),
        bar=entry.bar,
        floor_ms=1e3 * floor if floor else None,
        times_floor=median / floor if floor else None,
    )


def _ratio_cell(row: Row, first: str) -> Cell:
    """How many times as long it takes, beside its bar, and as what, if not as the first."""
    ratio = str(Ratio(row.ratio, *row.ratio_quartiles))
    cell = Cell("" if row.model == row.than else ratio)
    if row.bar is not None:
        what = f"{row.comparison}: {row.than} against {row.model}"
        cell.judge(Verdict(what, row.ratio, row.bar, measured=ratio))
    if row.than not in (row.model, first):
        cell.text += f" (as long as {row.than})"
    return cell


def _floor_cell(row: Row, bar: float | None) -> Cell:
    """How many times its floor it takes, beside its bar."""
    if row.times_floor is None:
        return Cell("")
    cell = Cell(f"{row.times_floor:.1f} ×")
    if bar is not None:
        what = f"{row.comparison}: {row.model} over its floor"
        cell.judge(Verdict(what, row.times_floor, bar, True, cell.text))
    return cell


def cuda_entries(make_step: Callable[..., Step], work: Mapping[str, Work]) -> list[Entry]:
    """Entries in bfloat16 and compiled, each compared with itself as it is.

    Args:
        make_step: ``make_step(name, bf16=True)`` and ``make_step(name, compiled=True)`` make the steps.
        work: Of the entries as they are, by name.
    """
    entries = []
    for name, least in work.items():
        entries.append(Entry(f"{name}, bf16", make_step(name, bf16=True), least, name, dtype=torch.bfloat16))
        entries.append(Entry(f"{name}, compiled", make_step(name, compiled=True), least, name))
    return entries


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
