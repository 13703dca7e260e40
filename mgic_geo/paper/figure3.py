"""The paper's Figure 3: what networks score over what they cost, published figures beside our own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from mgic_geo.training.plots import BLACK, BLUE, ORANGE, save_figure

# Families differ in colour and in shape. As many shapes as colours would tie each to one; these are coprime.
COLORS = (BLACK, BLUE, "#009E73", "#CC79A7", "#56B4E9")  # Okabe and Ito's, but for the orange of ours
MARKERS = "sv^<>DpPhdX"


class ScorePoint(NamedTuple):
    """A network in the figure.

    Args:
        panel: The part of the figure it belongs to.
        family: Networks of one design, which are connected; the legend names it.
        multiply_adds: Of one image, in millions.
        score: In percent.
        ours: Measured by us, and not as published.
    """

    panel: str
    family: str
    multiply_adds: float
    score: float
    ours: bool = False


def plot_scores(path: Path, points: Sequence[ScorePoint]) -> None:
    """Draw the scores of networks over their multiply-adds, on a logarithmic axis, panel by panel.

    Published figures are open markers, ours filled ones of the same shape and colour. MGIC families stand
    out. The legends lie beside the panels, so they cover no point.

    Args:
        path: The picture to write; its suffix says of what kind.
        points: At least one.
    """
    panels = list(dict.fromkeys(point.panel for point in points))
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(7 * columns, 4 * rows + 0.5), layout="constrained")
    for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=False):
        _draw(axes, panel, [point for point in points if point.panel == panel])
    for axes in figure.axes[len(panels) :]:
        axes.set_axis_off()
    ours = ", filled: ours" if any(point.ours for point in points) else ""
    figure.suptitle(f"Scores over multiply-adds; open: as the paper gives them{ours}")
    save_figure(figure, path)


def _draw(axes: Axes, panel: str, points: Sequence[ScorePoint]) -> None:
    families = sorted({point.family for point in points}, key=lambda name: ("MGIC" not in name, name))
    looks = zip(cycle(COLORS), cycle(MARKERS), strict=False)
    for family in families:
        stands_out = "MGIC" in family
        color, marker = (ORANGE, "o") if stands_out else next(looks)
        for ours in (False, True):
            chosen = sorted(p[2:4] for p in points if p.family == family and p.ours == ours)
            if not chosen:
                continue
            axes.plot(
                *zip(*chosen, strict=True),
                color=color,
                marker=marker,
                markersize=9 if stands_out else 6.5,
                markerfacecolor=color if ours else "white",
                linestyle="none" if ours else "-",
                linewidth=2 if stands_out else 0.8,
                zorder=3 if stands_out else 2,
                label=f"{family}, ours" if ours else family,
            )
    axes.set_xscale("log")
    low, high = (pick(point.multiply_adds for point in points) for pick in (min, max))
    axes.set_xlim(low / 1.15, high * 1.15)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: in_words(value)))
    metric = "mean intersection over union" if "Cityscapes" in panel else "top-1 accuracy"
    axes.set(title=panel, xlabel="multiply-adds of one image", ylabel=f"{metric}, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)


def in_words(millions: float) -> str:
    """Write a number of millions as it is read: 60 M, 1.5 B."""
    return f"{millions:g} M" if millions < 1000 else f"{millions / 1000:g} B"
