"""Section 4.4 as a picture: how cost grows with width, MGIC beside dense."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mgic_geo.scaling import Scaling
from mgic_geo.training.plots import BLUE, ORANGE, save_figure

MARKERS = "os^DvP"


class ScalingCurve(NamedTuple):
    """One block over its widths.

    Args:
        block: What it is; blocks differ in the marker.
        kind: ``"MGIC"``, which stands out, or else: kinds differ in colour.
        found: The figures.
    """

    block: str
    kind: str
    found: Scaling


def plot_scaling(path: Path, curves: Sequence[ScalingCurve]) -> None:
    """Draw parameters, multiply-adds and, where measured, time over the width, on logarithmic axes.

    The legend of each panel has the fitted exponents. Markers of later blocks are larger and hollow, so that
    curves which coincide are seen.

    Args:
        path: The PNG to write.
        curves: At least one.
    """
    titles = ("Parameters", "Multiply-adds of a forward pass", "Milliseconds, forward and backward")
    panels = [f for f in range(3) if any(curve.found.exponents[f] is not None for curve in curves)]
    figure = Figure(figsize=(13 / 3 * len(panels), 5), layout="constrained")
    for axes, field in zip(figure.subplots(1, len(panels)), panels, strict=True):
        _draw(axes, curves, field)
        axes.set(title=titles[field], xlabel="channels")
    found = curves[0].found
    where = f"{found.threads} thread{'s' if found.threads > 1 else ''}" if found.device == "cpu" else "GPU"
    timed = f"; time on {where}" if 2 in panels else ""
    figure.suptitle(f"Cost over width, exponents by least squares{timed}")
    save_figure(figure, path)


def _draw(axes: Axes, curves: Sequence[ScalingCurve], field: int) -> None:
    blocks = list(dict.fromkeys(curve.block for curve in curves))
    for curve in sorted(curves, key=lambda curve: curve.kind != "MGIC"):
        exponent = curve.found.exponents[field]
        if exponent is None:
            continue
        mgic, place = curve.kind == "MGIC", blocks.index(curve.block)
        axes.plot(
            [row.width for row in curve.found.rows],
            [float(row[field + 1] or 0) for row in curve.found.rows],
            color=ORANGE if mgic else BLUE,
            marker=MARKERS[place % len(MARKERS)],
            markersize=5 + 3 * max(0, place - 1),
            fillstyle="full" if place < 2 else "none",
            linewidth=2 if mgic else 1.2,
            linestyle="-" if mgic else "--",
            label=f"{exponent:.2f}  {curve.kind}, {curve.block}",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    widths = sorted({row.width for curve in curves for row in curve.found.rows})
    axes.xaxis.set_major_locator(FixedLocator(widths))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(alpha=0.3)
    axes.legend(title="exponent", loc="upper left", fontsize=8, alignment="left")
