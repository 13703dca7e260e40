"""What a conversion did, or would do: one row a layer, as text or Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress

from mgic_geo.text_table import aligned, markdown

__all__ = ["Conversion", "Row"]


@dataclass(frozen=True)
class Row:
    """One block or layer.

    Args:
        name: Its path in the model; the first, if it is used under several.
        before: What it is.
        after: Its MGIC form; empty if it is left alone.
        reason: Why it is left alone; empty if it is replaced.
        parameters: Learned values before and after.
        multiply_adds: Multiply-adds of one pass before and after; None if no inputs were given.
        error: Relative error of the projection, :math:`|MGIC(x) - layer(x)| / |layer(x)|`; None without one.
    """

    name: str
    before: str
    after: str
    reason: str
    parameters: tuple[int, int]
    multiply_adds: tuple[int, int] | None = None
    error: float | None = None


@dataclass(frozen=True)
class Conversion:
    """The report of :func:`mgic_geo.replace_convs`: ``print`` it for the table.

    Args:
        rows: One for each block or layer that was looked at, in the model's order.
        parameters: Learned values of the whole model, before and after.
        multiply_adds: Multiply-adds of one pass of the whole model; None if no inputs were given.
    """

    rows: tuple[Row, ...]
    parameters: tuple[int, int]
    multiply_adds: tuple[int, int] | None = None

    @property
    def replaced(self) -> tuple[Row, ...]:
        """The rows of what has an MGIC form now."""
        return tuple(row for row in self.rows if row.after)

    @property
    def left(self) -> tuple[Row, ...]:
        """The rows of what is left alone, with the reasons."""
        return tuple(row for row in self.rows if not row.after)

    def cells(self) -> Iterator[list[str]]:
        """Head, one line a row, and the totals; columns that would be empty are left out."""
        saved = ["after", "saved"]
        lines = [["layer", "before", "after", "parameters", *saved, "multiply-adds", *saved, "error"]]
        for row in self.rows:
            layer = [row.name or "(whole)", row.before, row.after or f"left: {row.reason}"]
            error = "" if row.error is None else f"{row.error:.3f}"
            lines.append([*layer, *_saved(row.parameters), *_saved(row.multiply_adds), error])
        total = f"{len(self.replaced)} replaced, {len(self.left)} left"
        lines.append(["(model)", "", total, *_saved(self.parameters), *_saved(self.multiply_adds), ""])
        counted = self.multiply_adds is not None
        projected = any(row.error is not None for row in self.rows)
        shown = [True] * 6 + [counted] * 3 + [projected]
        for line in lines:
            yield list(compress(line, shown))

    def markdown(self) -> str:
        """The table as Markdown."""
        head, *rows = self.cells()
        return markdown(head, rows, left=3, right="---:")

    def __str__(self) -> str:
        return aligned(list(self.cells()), left=3)


def _saved(counts: tuple[int, int] | None) -> list[str]:
    """Before, after, and the saving in percent."""
    if counts is None:
        return ["", "", ""]
    before, after = counts
    saved = f"{1 - after / before:.0%}" if before and before != after else ""
    return [f"{before:,}", f"{after:,}", saved]
