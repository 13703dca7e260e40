"""The confusion matrix of a classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.plots import literal, save_figure

NAMED = 40  # classes that a confusion matrix has room to name


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
