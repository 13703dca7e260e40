"""Peak memory of a training step of the point-cloud networks, each in a fresh process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from mgic_geo.benchmark.config import Config
from mgic_geo.benchmark.memory import peak_memory
from mgic_geo.benchmark.peers import cluster_runs
from mgic_geo.benchmark.points import DENSE, MGIC, NETWORKS, PLAIN, PYG, WIDTHS
from mgic_geo.benchmark.report import Report, Verdict
from mgic_geo.benchmark.steps import clouds, training_step
from mgic_geo.text_table import markdown
from mgic_geo.timing import Step

__all__ = ["compare_memory", "network_steps"]

SHARE = 1 / 6
"""The MGIC network's peak, at most, as a share of the plain port's."""


def network_steps(name: str, k: int, batch_size: int, points: int, device: str) -> tuple[Step, Step]:
    """A training step that warms up, and one on the batch that counts, of one network.

    The former's is tiny on the CPU; on a GPU, where k-NN tries two ways when a size comes first, as large.
    """
    model = NETWORKS[name](k, WIDTHS).to(device)
    first = (2, 2 * k) if device == "cpu" else (batch_size, points)
    return (
        training_step(model, clouds(*first, device)),
        training_step(model, clouds(batch_size, points, device)),
    )


def compare_memory(config: Config) -> Iterator[Report]:
    """The growth of the peak over what was there before the step, of every network."""
    title = f"Peak memory of a training step, {config.batch_size} × {config.points:,}, k = {config.k}"
    names = [MGIC, DENSE, PLAIN, *([PYG] if cluster_runs(config.device) else [])]
    peaks = {}
    for name in names:
        build = partial(network_steps, name, config.k, config.batch_size, config.points, config.device)
        peaks[name] = peak_memory(build, config.device)
    share = peaks[MGIC] / max(peaks[PLAIN], 1)
    found = Verdict(f"{title}: {MGIC} as a share of {PLAIN}", share, SHARE, True, f"1/{1 / share:.1f}")
    rows, lines = [], []
    for name, peak in peaks.items():
        rows.append({"comparison": title, "model": name, "peak_bytes": peak, "ratio": peak / peaks[MGIC]})
        words = "" if name == MGIC else f"{peak / peaks[MGIC]:.1f} ×"
        lines.append([name, f"{peak / 2**20:,.0f}", words + (f"; {found.words}" if name == PLAIN else "")])
    yield Report(title, rows, markdown(["step", "peak MiB", f"as much as {MGIC}"], lines), [found])
