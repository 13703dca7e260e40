"""
Pictures of a run: learning curves, confusion matrix, gallery of clouds; images have theirs in image_plots.

Colours are Okabe and Ito's, told apart by colour-blind readers; right and wrong also differ by a sign.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from torch import Tensor

from mgic_geo.files import replacing
from mgic_geo.training.evaluate import Evaluation
from mgic_geo.training.learner import Measure
from mgic_geo.training.module import ACCURACY

BLUE, ORANGE, BLACK = "#0072B2", "#D55E00", "#000000"
NAMED = 40  # classes that a confusion matrix has room to name


def plot_curves(
    path: Path,
    rows: Sequence[dict[str, float]],
    score: float,
    measure: Measure = ACCURACY,
    judged_on: str = "test",
) -> None:
    """
    Draw loss and measure over epochs, and the final score as a star.

    The training's loss is what is minimised, as with smoothed labels; validation's the plain cross-entropy.

    Args:
        path: the PNG to write.
        rows: those of ``History``.
        score: the measure on the images or clouds that the last epoch was judged on.
        measure: what the rows have beside the loss.
        judged_on: what that split is called.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    loss, scores = figure.subplots(1, 2)
    for axes, name, title, unit in (
        (loss, "loss", "Loss", "cross-entropy"),
        (scores, measure.key, measure.title, measure.unit),
    ):
        for split, color, label in (("train", BLUE, "training"), ("val", ORANGE, "validation")):
            if f"{split}_{name}" in rows[0]:
                values = [row[f"{split}_{name}"] for row in rows]
                if (split, name) == ("train", "loss"):
                    label = "training, as minimised"
                axes.plot(epochs, values, color=color, label=label, marker="." if len(rows) < 40 else None)
        axes.set(title=title, xlabel="epoch", ylabel=unit)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    scores.plot(
        epochs[-1:], [score], "*", color=BLACK, markersize=12, clip_on=False,
        label=f"{judged_on}, after the last epoch: {score:.1%}",
    )  # fmt: skip
    scores.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    scores.legend(loc="best")
    loss.legend(loc="best")
    save_figure(figure, path)


def plot_confusion(path: Path, result: Evaluation) -> None:
    """Draw how often each true class (rows) was taken for each class (columns)."""
    counts = result.confusion.numpy()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = len(result.classes)
    named = size <= NAMED  # beyond, a picture with every name and number would be too large to look at
    side = max(5.0, 0.36 * min(size, NAMED))
    figure = Figure(figsize=(side + 2, side + 1.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, format=PercentFormatter(1), label="share of the true class", shrink=0.8)
    shown = (counts > 0) | np.eye(size, dtype=bool)  # a class never found shows its 0
    for row, column in zip(*shown.nonzero(), strict=True) if named else ():
        color = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    if named:
        names = [literal(name) for name in result.classes]
        axes.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), names)
    by = "" if named else ", by number"
    axes.set(xlabel=f"predicted class{by}", ylabel=f"true class{by}")
    axes.set_title(f"{len(result.labels):,} test samples, {result.accuracy:.1%} classified rightly")
    save_figure(figure, path)


def plot_gallery(
    path: Path, points: Tensor, names: Sequence[str], result: Evaluation, columns: int = 6, rows: int = 3
) -> None:
    """
    Draw the clouds whose true class seemed least probable, worst first.

    Args:
        path: the PNG to write.
        points: (S, P, 3) the clouds, z up; all P points are drawn, even where the model sees fewer.
        names: S names of the clouds.
        result: the model's answers to them.
        columns: clouds in a row.
        rows: rows at most.
    """
    chosen: list[int] = result.worst_first()[: columns * rows].tolist()
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(2.1 * columns, 2.3 * rows + 0.6), layout="constrained")
    wrong = int((result.predictions != result.labels).sum())
    count = f"{wrong:,} of {len(result.labels):,} are wrong"
    figure.suptitle(f"Hardest test clouds, worst first ({count}); near points are dark")
    for axes, index in zip(figure.subplots(rows, columns, squeeze=False).flat, chosen, strict=False):
        _draw_cloud(axes, points[index].numpy())
        write_verdict(axes, result, index)
        write_name(axes, names[index])
    for axes in figure.axes:
        axes.set_axis_off()
    save_figure(figure, path)


def write_verdict(axes: Axes, result: Evaluation, index: int) -> None:
    """Write the true class of sample ``index`` above ``axes``, and what it was taken for."""
    label, prediction = int(result.labels[index]), int(result.predictions[index])
    truth, share = (float(result.probabilities[index, c]) for c in (label, prediction))
    right = label == prediction
    axes.set_title(
        f"true: {literal(result.classes[label])} {truth:.1%}\n"
        f"{'✓✗'[not right]} {literal(result.classes[prediction])} {share:.1%}",
        color=BLUE if right else ORANGE, fontsize=9,
    )  # fmt: skip


def write_name(axes: Axes, name: str) -> None:
    """Write the name of a sample below ``axes``."""
    place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "top"}
    axes.text(0.5, -0.02, literal(name), fontsize=6, color="grey", **place)


def _draw_cloud(
    axes: Axes, points: NDArray[np.floating], azimuth: float = 35.0, elevation: float = 25.0
) -> None:
    """Draw (N, 3) points from above and aside: parallel projection, equal axes, near points darker."""
    turn, tilt = np.radians([azimuth, elevation])
    x, y, z = points.T
    right, away = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    up, depth = z * np.cos(tilt) + away * np.sin(tilt), away * np.cos(tilt) - z * np.sin(tilt)
    order = np.argsort(-depth)  # far points first, so that near ones cover them
    size = min(9.0, 9000 / len(points))
    axes.scatter(right[order], up[order], c=depth[order], s=size, cmap="viridis", linewidths=0)
    axes.set_aspect("equal", adjustable="datalim")  # all panels stay of one size


def literal(name: str) -> str:
    """Return a name of the data's so that matplotlib draws it as it is: a formula stands between two $."""
    return name.replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path`` as PNG."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
