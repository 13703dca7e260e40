"""Tables as text, aligned and in Markdown, and the figures in them."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["aligned", "markdown", "padded", "percent"]


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns two spaces apart, the first ``left`` of them aligned to the left, the others to the right."""
    return "\n".join("  ".join(row).rstrip() for row in padded(rows, left))


def padded(rows: Sequence[Sequence[str]], left: int = 1) -> list[list[str]]:
    """The cells, filled up to the widths of their columns; the first ``left`` of them stand on the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, right: str = "--:") -> str:
    """A Markdown table, its first ``left`` columns aligned to the left, the others by the mark ``right``."""
    rule = ["---"] * left + [right] * (len(head) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def percent(share: float | None, unit: str = " %") -> str:
    """A share in percent, to a tenth; a dash where there is none: None, or not a number."""
    return "–" if share is None or math.isnan(share) else f"{100 * share:.1f}{unit}"
