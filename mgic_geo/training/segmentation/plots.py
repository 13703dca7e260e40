"""Pictures of a segmenter's answers: how well each class is found, and the worst images with their masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from torch import Tensor

from mgic_geo.datasets import IGNORE
from mgic_geo.text_table import percent
from mgic_geo.training.plots import BLACK, literal, save_figure
from mgic_geo.training.segmentation.evaluation import SegmentationEvaluation

Palette = Sequence[tuple[int, int, int]]

OPACITY = 0.6  # of the colours of classes on the image below


def plot_iou(path: Path, result: SegmentationEvaluation, palette: Palette) -> None:
    """Draw the IoU of each class as a bar and, in the same rows, what its pixels were taken for.

    Args:
        path: The PNG to write.
        result: The model's answers.
        palette: The colours of the classes, red, green and blue in 0 … 255.
    """
    classes = len(result.classes)
    side = max(3.6, 0.34 * classes)
    figure = Figure(figsize=(1.25 * side + 5.5, side + 1.4), layout="constrained")
    bars, matrix = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.25))
    iou = result.class_iou.numpy()
    places = np.arange(classes)
    colors = [_fraction(color) for color in palette]
    bars.barh(places, np.nan_to_num(iou), color=colors, edgecolor="#444444", linewidth=0.6)
    for place, value in zip(places, iou, strict=True):
        text = "does not occur" if np.isnan(value) else f"{value:.0%}"
        bars.text(np.nan_to_num(value) + 0.015, place, text, va="center", fontsize=8)
    bars.axvline(result.miou, color=BLACK, linewidth=1, linestyle="--", label=f"mean: {result.miou:.1%}")
    bars.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    names = [literal(name) for name in result.classes]
    bars.set(xlim=(0, 1.14), xlabel="intersection over union", yticks=places, yticklabels=names)
    bars.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bars.spines[["top", "right"]].set_visible(False)

    counts = result.confusion.numpy()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = matrix.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in zip(*(shares >= 0.005).nonzero(), strict=True):
        color = "white" if shares[row, column] > 0.55 else "black"
        text = f"{100 * shares[row, column]:.0f}"
        matrix.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    matrix.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    matrix.set(xlabel="predicted class", title="share of a class's pixels, in %")
    matrix.tick_params(axis="y", length=0)
    figure.colorbar(image, ax=matrix, format=PercentFormatter(1, decimals=0), shrink=0.8)
    save_figure(figure, path)


def plot_segmentations(
    path: Path,
    look: Callable[[int], tuple[Tensor, Tensor, Tensor]],
    names: Callable[[int], str],
    result: SegmentationEvaluation,
    palette: Palette,
    rows: int = 6,
) -> None:
    """Draw the images of least mean IoU, worst first: image, truth and prediction side by side.

    Pixels without a label are hatched in the truth.

    Args:
        path: The PNG to write.
        look: Returns image i (3, H, W) uint8, its mask (H, W) and the predicted classes (H, W).
        names: Returns the name of image i.
        result: The model's answers to the images.
        palette: The colours of the classes, red, green and blue in 0 … 255.
        rows: Images at most.
    """
    chosen = result.worst_first()[:rows].tolist()
    seen = [look(index) for index in chosen]
    height, width = seen[0][0].shape[1:]
    tall = 3.3 * height / width  # inches of a panel
    figure = Figure(figsize=(10.2, (tall + 0.28) * len(chosen) + 1.2), layout="constrained")
    figure.suptitle(
        f"Worst of {len(result.confusions):,} images, by mean IoU (of all together: {result.miou:.1%})"
    )
    panels = figure.subplots(len(chosen), 3, squeeze=False)
    ious = result.image_miou
    for line, index, (image, mask, prediction) in zip(panels, chosen, seen, strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        line[0].imshow(pixels)
        line[0].set_title(literal(names(index)), fontsize=8, loc="left", color="#555555")
        line[1].imshow(laid_over(pixels, mask.numpy(), palette))
        line[1].set_title("truth", fontsize=9)
        line[2].imshow(laid_over(pixels, prediction.numpy(), palette))
        line[2].set_title(f"prediction, mean IoU {percent(float(ious[index]), '%')}", fontsize=9)
    for axes in figure.axes:
        axes.set_axis_off()
    legend: list[Any] = [
        Patch(facecolor=_fraction(color), edgecolor="#444444", label=literal(name))
        for name, color in zip(result.classes, palette, strict=True)
    ]
    legend.append(Patch(facecolor="#bbbbbb", edgecolor="#555555", hatch="////", label="no label"))
    figure.legend(handles=legend, loc="outside lower center", ncols=6, fontsize=9, frameon=False)
    save_figure(figure, path)


def laid_over(pixels: NDArray[np.uint8], labels: NDArray[np.integer], palette: Palette) -> NDArray[np.uint8]:
    """Return an image with the colours of its classes laid over it, and hatching where there is no label.

    Args:
        pixels: (H, W, 3).
        labels: (H, W), classes or ``IGNORE``.
        palette: The colours of the classes.
    """
    table = np.zeros((256, 3))
    table[: len(palette)] = palette
    colors = table[labels]
    rows, columns = np.indices(labels.shape)
    period = max(4, len(labels) // 40)
    stripes = np.where((rows + columns) % period < period / 3, 85.0, 187.0)[..., None]
    grey = pixels.mean(-1, keepdims=True)
    opaque = np.where(labels[..., None] == IGNORE, stripes, OPACITY * colors + (1 - OPACITY) * grey)
    return opaque.round().astype(np.uint8)


def _fraction(color: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = color
    return red / 255, green / 255, blue / 255
