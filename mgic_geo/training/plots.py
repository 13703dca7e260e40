"""Learning curves, and what all pictures share.

Colours are Okabe and Ito's, told apart by colour-blind readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mgic_geo.files import replacing
from mgic_geo.training.classification.classifier import ACCURACY
from mgic_geo.training.learner import Measure

BLUE, ORANGE, BLACK = "#0072B2", "#D55E00", "#000000"


def plot_curves(
    path: Path,
    rows: Sequence[dict[str, float]],
    score: float,
    measure: Measure = ACCURACY,
    judged_on: str = "test",
) -> None:
    """Draw loss and measure over epochs, and the final score as a star.

    The training's loss is what is minimised, as with smoothed labels; validation's the plain cross-entropy.

    Args:
        path: The PNG to write.
        rows: Those of ``History``.
        score: The measure on the images or clouds that the last epoch was judged on.
        measure: What the rows have beside the loss.
        judged_on: What that split is called.
    """
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    loss, scores = figure.subplots(1, 2)
    ceiling = _ceiling(rows)
    for axes, name, title, unit in (
        (loss, "loss", "Loss", "cross-entropy"),
        (scores, measure.key, measure.title, measure.unit),
    ):
        for split, color, label in (("train", BLUE, "training"), ("val", ORANGE, "validation")):
            if f"{split}_{name}" in rows[0]:
                values = [row[f"{split}_{name}"] for row in rows]
                if (split, name) == ("train", "loss"):
                    label = "training, as minimised"
                if (split, name) == ("val", "loss") and ceiling is not None:
                    label = f"validation, up to {max(values):,.0f}"
                axes.plot(epochs, values, color=color, label=label, marker="." if len(rows) < 40 else None)
        axes.set(title=title, xlabel="epoch", ylabel=unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    scores.plot(
        epochs[-1:], [score], "*", color=BLACK, markersize=12, clip_on=False,
        label=f"{judged_on}, after the last epoch: {score:.1%}",
    )  # fmt: skip
    scores.yaxis.set_major_formatter(PercentFormatter(1))
    if ceiling is not None:
        loss.set_ylim(0, ceiling)
    for axes in (loss, scores):  # below, where no curve can be covered
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False, fontsize=8,
            columnspacing=1, handlelength=1.5,
        )  # fmt: skip
    save_figure(figure, path)


def _ceiling(rows: Sequence[dict[str, float]]) -> float | None:
    """Return where to cut the panel of losses off, if few of validation are so high that others lie flat."""
    losses = [row["val_loss"] for row in rows if math.isfinite(row.get("val_loss", math.nan))]
    if not losses:
        return None
    usual = float(np.quantile(losses, 0.9, method="lower"))
    ceiling = 1.5 * max(usual, *(row["train_loss"] for row in rows))
    return ceiling if max(losses) > 2 * ceiling else None


def literal(name: str) -> str:
    """Return a name of the data's so that matplotlib draws it as it is: a formula stands between two $."""
    return name.replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path``, as the kind of picture its suffix names; as PNG without one."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:] or "png", dpi=130)
