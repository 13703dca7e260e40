"""
Print the paper's tables of image models as Markdown: what ours cost, beside the paper's figures.

Parameters and multiply-adds are counted on the spot; scores come from a file, if one is given. Each row is a
model of ``create_model``. Where it departs from the paper's words the table says in what, and what the model
by those words costs.

    python experiments/tables.py --results scores.json --output tables.md
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tyro

from mgic_geo import complexity, create_model
from mgic_geo.training import UsageError, plain_errors
from mgic_geo.training.files import replacing


class Paper(NamedTuple):
    """What the paper says: parameters and multiply-adds of one image, both in millions, and its score.

    The score is the accuracy, or on Cityscapes the mean intersection over union, in percent.
    """

    parameters: float
    multiply_adds: float
    score: float


@dataclass(frozen=True)
class Row:
    """One line of the paper's tables.

    Args:
        task: Data set.
        model: Name for ``create_model``.
        size: Height and width of the image.
        paper: The paper's figures.
        literal: Name and arguments of the model by the paper's words; None for a baseline.
        changed: In what ours departs from it.
    """

    task: str
    model: str
    size: tuple[int, int]
    paper: Paper
    literal: tuple[str, dict[str, Any]] | None = None
    changed: str = ""


def _resnet56(group_size: int, coarse_size: int, paper: Paper, blocks: str, least: int = 1) -> Row:
    literal = ("mgic_resnet56", {"group_size": group_size, "coarse_size": coarse_size})
    name = f"mgic_resnet56_g{group_size}_c{coarse_size}"
    return Row(
        "CIFAR-10", name, (32, 32), paper, literal, f"blocks {blocks} for 9, 9, 9; `min_levels={least}`"
    )


def _resnet50(group_size: int, paper: Paper, blocks: str) -> Row:
    literal = ("mgic_resnet50", {"group_size": group_size})
    name = f"mgic_resnet50_g{group_size}_c64"
    return Row("ImageNet", name, (224, 224), paper, literal, f"blocks {blocks} for 3, 4, 6, 3")


def _mobilenet(width: float, paper: Paper, changed: str) -> Row:
    literal = ("mgic_mobilenetv3_large", {"width": width})
    name = f"mgic_mobilenetv3_large_{round(100 * width):03}"
    return Row("ImageNet", name, (224, 224), paper, literal, changed)


def _lraspp(name: str, paper: Paper, changed: str = "") -> Row:
    literal = (name, {"tail_squeeze": False}) if "mgic" in name else None
    return Row("Cityscapes", name, (1024, 2048), paper, literal, changed)


ROWS = (
    Row("CIFAR-10", "resnet56", (32, 32), Paper(0.85, 125, 93.0)),
    _resnet56(8, 16, Paper(0.41, 60, 94.2), "4, 8, 11", least=0),
    _resnet56(16, 16, Paper(0.47, 65, 94.3), "2, 8, 10"),
    _resnet56(16, 32, Paper(0.50, 76, 94.6), "4, 8, 9"),
    _resnet56(16, 64, Paper(0.53, 91, 94.7), "6, 8, 10"),
    Row("ImageNet", "resnet50", (224, 224), Paper(25.6, 4100, 75.3)),
    _resnet50(16, Paper(6.2, 1000, 74.3), "1, 3, 6, 3"),
    _resnet50(32, Paper(9.4, 1600, 75.8), "1, 3, 6, 3"),
    _resnet50(64, Paper(15.1, 2500, 77.9), "1, 2, 6, 3"),
    Row("ImageNet", "mobilenetv3_large", (224, 224), Paper(5.4, 219, 75.2)),
    _mobilenet(
        0.6, Paper(2.3, 48, 66.3), "without rows 5, 8, 9; expansions × 0.6; 1168 hidden units for 768"
    ),
    _mobilenet(1.0, Paper(5.2, 145, 74.8), "without rows 5, 8, 9; 1760 hidden units for 1280"),
    _mobilenet(1.2, Paper(7.1, 233, 76.1), "2064 hidden units for 1536, to spend the parameters"),
    _lraspp("lraspp_mobilenetv3_large", Paper(1.51, 9740, 72.64)),
    _lraspp("lraspp_mobilenetv3_small", Paper(0.47, 2900, 68.38)),
    _lraspp(
        "lraspp_mgic_mobilenetv3_large",
        Paper(1.67, 9620, 72.60),
        "at least one coarsening, squeeze-excite in all of the last stage, to spend the budget",
    ),
    _lraspp("lraspp_mgic_mobilenetv3_small", Paper(0.48, 2730, 68.52)),
)


@dataclass
class Config:
    """What to print."""

    only: str = ""
    """Print the rows whose model's name holds this."""
    results: Path | None = None
    """A JSON file of our scores in percent, by the model's name."""
    output: Path | None = None
    """Write the table to this file, too."""
    literal: bool = True
    """Also count the models by the paper's words; takes some minutes."""


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
    lines = [head, ["---"] * len(head)]
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
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
    config = tyro.cli(Config, args=argv, description=(__doc__ or "").strip())
    with plain_errors():
        rows = [row for row in ROWS if config.only in row.model]
        if not rows:
            names = ", ".join(row.model for row in ROWS)
            raise UsageError(f"--only {config.only}: no row's model holds that; there are {names}")
        text = table(rows, read_scores(config.results), config.literal)
        print(text)
        if config.output:
            with replacing(config.output) as temporary:
                temporary.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
