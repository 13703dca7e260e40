"""Print the paper's tables of image models as Markdown, with what ours cost beside; draw its Figure 3.

Parameters and multiply-adds are counted on the spot; scores come from a file, if one is given. Each row is a
model of ``create_model``. Where it departs from the paper's words the table says in what, and what the model
by those words costs.

    python experiments/tables.py --results scores.json --output tables.md --plot figure3.png
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from mgic_geo import complexity, create_model
from mgic_geo.paper.figure3 import ScorePoint, plot_scores
from mgic_geo.paper.rows import OTHERS, PANELS, ROWS, Row
from mgic_geo.text_table import markdown
from mgic_geo.training.command_line import command_line
from mgic_geo.training.config import Flags
from mgic_geo.training.errors import UsageError, check_target, plain_errors, write_text

PICTURES = (".png", ".pdf", ".svg")


@dataclass(kw_only=True)
class Config(Flags):
    """What to print."""

    only: str = ""
    """Print the rows whose model's name holds this."""
    results: Path | None = None
    """A JSON file of our scores in percent, by the model's name."""
    output: Path | None = None
    """Write the table to this file, too."""
    plot: Path | None = None
    """Draw Figure 3, scores over multiply-adds, to this PNG, PDF or SVG: the paper's figures open, our scores
    filled."""
    literal: bool = True
    """Also count the models by the paper's words; takes some minutes."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems()
        if not any(self.only in row.model for row in ROWS):
            names = ", ".join(row.model for row in ROWS)
            found.append(f"--only {self.only}: no row's model holds that; there are {names}")
        return found


@cache
def cost(name: str, size: tuple[int, int], **kwargs: Any) -> tuple[float, float]:
    """Parameters and multiply-adds of one image, in millions."""
    # Large images need no memory where there are no values; small ones are counted faster with them.
    device = "meta" if size[0] * size[1] > 300**2 else "cpu"
    with torch.device(device):
        model = create_model(name, **kwargs)
    counted = complexity(model, torch.zeros(1, 3, *size, device=device))
    return counted.parameters / 1e6, counted.multiply_adds / 1e6


def table(rows: list[Row], scores: dict[str, float], literal: bool) -> str:
    """The rows as Markdown; where there is a literal model, with at least 0 and at least 1 coarsening."""
    head = ["task", "model", "parameters M", "paper", "ratio", "multiply-adds M", "paper", "ratio"]
    head += ["score %", "paper", "changed"]
    head += ["literal, `min_levels=0`", "literal, `min_levels=1`"] if literal else []
    lines = []
    for row in rows:
        paper, line = row.paper, [row.task, f"`{row.model}`"]
        parameters, multiply_adds = cost(row.model, row.size)
        line += [f"{parameters:.3f}", f"{paper.parameters:g}", f"{parameters / paper.parameters:.3f}"]
        line += [
            f"{multiply_adds:.1f}", f"{paper.multiply_adds:g}", f"{multiply_adds / paper.multiply_adds:.3f}",
        ]  # fmt: skip
        score = f"{scores[row.model]:.1f}" if row.model in scores else ""
        line += [score, f"{paper.score:g}", row.changed]
        for least in (0, 1) if literal else ():
            figures = ""
            if row.literal is not None:
                name, kwargs = row.literal
                figures = "{:.3f} M, {:.1f} M".format(*cost(name, row.size, min_levels=least, **kwargs))
            line.append(figures)
        lines.append(line)
    return markdown(head, lines, left=len(head))


def points(rows: list[Row], scores: dict[str, float]) -> list[ScorePoint]:
    """The figures of the rows and of what the paper compares them with, then our scores at our cost."""
    panels = {row.panel for row in rows}
    found = [ScorePoint(*other) for other in OTHERS if other.panel in panels]
    found += [ScorePoint(r.panel, r.family, r.paper.multiply_adds, r.paper.score) for r in rows]
    for row in rows:
        if row.model in scores:
            multiply_adds = cost(row.model, row.size)[1]
            found.append(ScorePoint(row.panel, row.family, multiply_adds, scores[row.model], ours=True))
    return sorted(found, key=lambda point: PANELS.index(point.panel))


def read_scores(path: Path | None) -> dict[str, float]:
    """Our scores by model, none without a file."""
    if path is None:
        return {}
    try:
        scores = {name: float(score) for name, score in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"--results {path} is no JSON file of a score by model: {error}") from error
    unknown = scores.keys() - {row.model for row in ROWS}
    if unknown:
        raise UsageError(f"--results {path} has scores of {', '.join(sorted(unknown))}, which no row is")
    return scores


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script with the arguments ``argv``, or those of the command line."""
    config = command_line(Config, argv, __doc__)
    with plain_errors():
        config.validate()
        check_target("--output", config.output)
        check_target("--plot", config.plot)
        if config.plot and config.plot.suffix not in PICTURES:
            raise UsageError(f"--plot {config.plot} is no kind of picture; end it in {', '.join(PICTURES)}")
        rows = [row for row in ROWS if config.only in row.model]
        scores = read_scores(config.results)
        text = table(rows, scores, config.literal)
        print(text)
        if config.output:
            write_text(config.output, text + "\n")
        if config.plot:
            plot_scores(config.plot, points(rows, scores))


if __name__ == "__main__":
    main()
