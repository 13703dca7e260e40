"""Tables as text: aligned, and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["aligned", "markdown"]


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns two spaces apart, the first ``left`` of them aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, strict=True)
        return "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(cells)
        ).rstrip()

    return "\n".join(map(line, rows))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, right: str = "--:") -> str:
    """A Markdown table, its first ``left`` columns aligned to the left, the others by the mark ``right``."""
    rule = ["---"] * left + [right] * (len(head) - left)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))
