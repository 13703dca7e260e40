"""How the step of the MGIC network grows with the points of a cloud and with the clouds of a batch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from mgic_geo.benchmark.comparison import milliseconds
from mgic_geo.benchmark.config import Config
from mgic_geo.benchmark.points import MGIC, NETWORKS, WIDTHS
from mgic_geo.benchmark.report import Report, Verdict
from mgic_geo.benchmark.steps import clouds, training_step
from mgic_geo.text_table import markdown
from mgic_geo.timing import interleave

__all__ = ["CLOUDS", "POINTS", "compare_growth", "growth_report"]

CLOUDS, POINTS = 4, 256
"""Clouds of a batch while their points grow, points of a cloud while the clouds do."""
STEEPEST = {"points": 2.3, "clouds": 1.3}
"""By what grows: the largest exponent between neighbouring sizes, or there is a cliff. k-NN compares all
pairs of points, clouds do not meet; the rest allows for noise."""


def compare_growth(config: Config) -> Iterator[Report]:
    """Times of both series, each with its exponent and the steepest growth between neighbouring sizes."""
    series = (
        ("points", f"{CLOUDS} clouds", {n: (CLOUDS, n) for n in config.cloud_sizes}),
        ("clouds", f"clouds of {POINTS} points", {n: (n, POINTS) for n in config.batch_sizes}),
    )
    for what, fixed, shapes in series:
        model = NETWORKS[MGIC](config.k, WIDTHS).to(config.device)
        model.hidden.eval()  # type: ignore[operator, union-attr]  # normalises over clouds: needs two
        steps = {n: training_step(model, clouds(*shape, config.device)) for n, shape in shapes.items()}
        times = interleave(steps, config.rounds, config.timed, config.limit)
        yield growth_report(what, fixed, {n: 1e3 * found.median for n, found in times.items()})


def growth_report(what: str, fixed: str, times: Mapping[int, float]) -> Report:
    """The table of times in milliseconds by size, which ascends, and whether there is a cliff."""
    sizes = list(times)
    title = f"Growth of the step of {MGIC} with {what}, {fixed}"
    rows: list[dict[str, Any]] = [{"comparison": title, "size": n, "median_ms": times[n]} for n in sizes]
    logs = [(math.log(n), math.log(times[n])) for n in sizes]
    local = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(logs)]
    lines = [
        [f"{n:,}", milliseconds(times[n]), f"{before:.2f}" if before is not None else ""]
        for n, before in zip(sizes, [None, *local], strict=True)
    ]
    verdicts = []
    if local:
        exponent = statistics.linear_regression(*zip(*logs, strict=True)).slope
        rows.append({"comparison": title, "exponent": exponent, "steepest": max(local)})
        lines.append(["exponent", "", f"{exponent:.2f}"])
        found = Verdict(
            f"{title}: steepest exponent between neighbours", max(local), STEEPEST[what], True,
            f"{max(local):.2f}; of all {exponent:.2f}",
        )  # fmt: skip
        lines.append(["steepest", "", f"{max(local):.2f}; {found.words}"])
        verdicts.append(found)
    head = [what, "median ms", "exponent from the size before"]
    return Report(title, rows, markdown(head, lines), verdicts)
