"""Figures beside their bars, as rows and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mgic_geo.text_table import markdown

__all__ = ["Report", "Verdict", "verdict_table"]


@dataclass(frozen=True)
class Verdict:
    """A figure and the bar that it should reach.

    Args:
        what: What was measured.
        value: The figure.
        bar: What it should be at least, or at most.
        at_most: Whether less is better.
        measured: The figure in words, with its spread.
    """

    what: str
    value: float
    bar: float
    at_most: bool = False
    measured: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure reaches the bar."""
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    @property
    def words(self) -> str:
        """The bar, and whether it is met."""
        return f"bar {'≤' if self.at_most else '≥'} {self.bar:.3g}: {'met' if self.met else 'not met'}"


@dataclass(frozen=True)
class Report:
    """One table: its rows as plain values, its text, and its bars."""

    title: str
    rows: list[dict[str, Any]]
    text: str
    verdicts: list[Verdict] = field(default_factory=list)


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """All bars as Markdown."""
    lines = [
        [v.what, v.measured, f"{'≤' if v.at_most else '≥'} {v.bar:.3g}", "met" if v.met else "not met"]
        for v in verdicts
    ]
    return markdown(["what", "measured", "bar", ""], lines)
