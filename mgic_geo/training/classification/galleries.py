"""Galleries of the hardest clouds and images, with what they were taken for: ✓ rightly, ✗ wrongly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.plots import BLUE, ORANGE, literal, save_figure

NAME = 20  # letters of a class name that are shown
FILE = 26  # letters of a file's name


def plot_gallery(
    path: Path, points: Tensor, names: Sequence[str], result: Evaluation, columns: int = 6, rows: int = 3
) -> None:
    """Draw the clouds whose true class seemed least probable, worst first.

    Args:
        path: The PNG to write.
        points: (S, P, 3) the clouds, z up; all P points are drawn, even where the model sees fewer.
        names: S names of the clouds.
        result: The model's answers to them.
        columns: Clouds in a row.
        rows: Rows at most.
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


def plot_images(
    path: Path,
    picture: Callable[[int], Tensor],
    names: Callable[[int], str],
    result: Evaluation,
    columns: int = 8,
    rows: int = 4,
) -> None:
    """Draw the images whose true class seemed least probable, worst first.

    Args:
        path: The PNG to write.
        picture: Returns image i, (3, H, W) uint8.
        names: Returns the name of image i.
        result: The model's answers to them.
        columns: Images in a row.
        rows: Rows at most.
    """
    result = replace(result, classes=tuple(_cut(name) for name in result.classes))
    chosen = result.worst_first()[: columns * rows].tolist()
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(1.7 * columns, 2.1 * rows + 0.5), layout="constrained")
    wrong = int((result.predictions != result.labels).sum())
    figure.suptitle(
        f"Hardest test images, worst first ({wrong:,} of {len(result.labels):,} are wrong); "
        "shares say how sure the model was"
    )
    figure.subplots(rows, columns, squeeze=False)
    for axes, index in zip(figure.axes, chosen, strict=False):
        axes.imshow(picture(index).permute(1, 2, 0).numpy())
        write_verdict(axes, result, index)
        write_name(axes, _end_of(names(index)))
    for axes in figure.axes:
        axes.set_axis_off()
    _fit_titles(figure)
    save_figure(figure, path)


def _fit_titles(figure: Figure) -> None:
    """Print the titles smaller, all alike, where one is wider than its panel."""
    figure.draw_without_rendering()
    room = min(
        axes.get_window_extent().width / max(1.0, axes.title.get_window_extent().width)
        for axes in figure.axes
    )
    for axes in figure.axes:
        axes.title.set_fontsize(float(axes.title.get_fontsize()) * min(1.0, room))


def _end_of(name: str) -> str:
    return name if len(name) <= FILE else f"…{name[1 - FILE :]}"


def _cut(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"


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
