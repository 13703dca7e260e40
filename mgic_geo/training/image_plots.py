"""Galleries of images: the hardest ones with what they were taken for."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from mgic_geo.training.evaluate import Evaluation
from mgic_geo.training.plots import save_figure, write_verdict


def plot_images(
    path: Path, picture: Callable[[int], Tensor], result: Evaluation, columns: int = 8, rows: int = 4
) -> None:
    """
    Draw the images whose true class seemed least probable, worst first.

    Args:
        path: the PNG to write.
        picture: returns image i, (3, H, W) uint8.
        result: the model's answers to them.
        columns: images in a row.
        rows: rows at most.
    """
    chosen = result.worst_first()[: columns * rows].tolist()
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(1.7 * columns, 2.1 * rows + 0.5), layout="constrained")
    wrong = int((result.predictions != result.labels).sum())
    figure.suptitle(
        f"Hardest test images, worst first ({wrong:,} of {len(result.labels):,} are wrong); "
        "shares say how sure the model was"
    )
    for axes, index in zip(figure.subplots(rows, columns, squeeze=False).flat, chosen, strict=False):
        axes.imshow(picture(index).permute(1, 2, 0).numpy())
        write_verdict(axes, result, index)
    for axes in figure.axes:
        axes.set_axis_off()
    save_figure(figure, path)
