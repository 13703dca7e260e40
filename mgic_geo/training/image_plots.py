"""Galleries of images: the hardest ones with what they were taken for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from mgic_geo.training.evaluate import Evaluation
from mgic_geo.training.plots import save_figure, write_name, write_verdict

NAME = 20  # letters of a class name that are shown
FILE = 26  # letters of a file's name


def plot_images(
    path: Path,
    picture: Callable[[int], Tensor],
    names: Callable[[int], str],
    result: Evaluation,
    columns: int = 8,
    rows: int = 4,
) -> None:
    """
    Draw the images whose true class seemed least probable, worst first.

    Args:
        path: the PNG to write.
        picture: returns image i, (3, H, W) uint8.
        names: returns the name of image i.
        result: the model's answers to them.
        columns: images in a row.
        rows: rows at most.
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
