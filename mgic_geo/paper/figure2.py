"""The paper's Figure 2: feature maps, what the coarsest level keeps of them, and what comes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mgic_geo.training.plots import save_figure


class Reconstruction(NamedTuple):
    """What one autoencoder makes of the features of an image.

    Args:
        title: What is written above its maps.
        coarsest: (H, W, c_n) the coarsest level.
        decoded: (H, W, C) what comes back.
    """

    title: str
    coarsest: Tensor
    decoded: Tensor


def plot_reconstructions(
    path: Path, image: Tensor, features: Tensor, reconstructions: Sequence[Reconstruction]
) -> None:
    """Draw an image, a feature map, the coarsest level of the first reconstruction, and what comes back.

    The upper row shows one map: that which varies most over the image. Maps and what comes back share one
    scale of greys; the coarsest level, whose maps are mixtures of any sign, has its own.

    Args:
        path: The PNG to write.
        image: (3, H', W') uint8.
        features: (H, W, C).
        reconstructions: Of the features, one a group size.
    """
    columns = 2 + len(reconstructions)
    figure = Figure(figsize=(2.3 * columns, 5.3), layout="constrained")
    upper, lower = figure.subplots(2, columns)
    chosen = int(features.flatten(0, 1).var(0).argmax())
    first = reconstructions[0]

    upper[0].imshow(image.permute(1, 2, 0).numpy())
    upper[0].set_title("input image")
    _grey(upper[1], features[..., chosen], features[..., chosen])
    upper[1].set_title(f"feature map {chosen + 1} of {features.size(-1)}")
    _grey(lower[0], mosaic(features), features)
    lower[0].set_title(f"all {features.size(-1)} feature maps")
    _grey(lower[1], mosaic(first.coarsest), first.coarsest)
    lower[1].set_title(f"coarsest level, {first.coarsest.size(-1)} maps\n({first.title})")
    for axes, below, shown in zip(upper[2:], lower[2:], reconstructions, strict=True):
        _grey(axes, shown.decoded[..., chosen], features[..., chosen])
        axes.set_title(f"map {chosen + 1} reconstructed\n{shown.title}")
        _grey(below, mosaic(shown.decoded), features)
        below.set_title(f"all maps reconstructed\n{shown.title}")
    for axes in figure.axes:
        axes.set_axis_off()
    save_figure(figure, path)


def mosaic(maps: Tensor) -> Tensor:
    """Lay maps (H, W, C) side by side, row after row, in a picture nearly square.

    Gaps between them, and places left over, are NaN.
    """
    height, width, count = maps.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    gap = max(1, round(max(height, width) / 16))
    picture = torch.full((rows * (height + gap) - gap, columns * (width + gap) - gap), torch.nan)
    for i in range(count):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        picture[top : top + height, left : left + width] = maps[..., i]
    return picture


def _grey(axes: Axes, picture: Tensor, scale: Tensor) -> None:
    """Draw (H, W) in greys that run over all but the extremes of ``scale``."""
    low, high = scale.float().flatten().quantile(torch.tensor([0.005, 0.995])).tolist()
    axes.imshow(
        picture.float().numpy(), cmap="gray", vmin=low, vmax=max(high, low + 1e-12), interpolation="nearest"
    )
