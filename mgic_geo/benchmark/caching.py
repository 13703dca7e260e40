"""How long meshes take to become cached clouds, in one process and with workers on all cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import NamedTuple

from trimesh import creation

from mgic_geo.benchmark.config import Config
from mgic_geo.benchmark.report import Report
from mgic_geo.datasets.cloud_cache import build_cache
from mgic_geo.datasets.cores import usable_cores
from mgic_geo.datasets.sources import find_meshes
from mgic_geo.text_table import markdown

__all__ = ["Caching", "cache_meshes", "caching_report", "compare_caching", "write_meshes"]

MESHES, QUICK = 2000, 200
"""Meshes in a full run and in a quick one."""
SECTIONS = 100, 64
"""Of the torus that each mesh is, around and along: 12,800 faces, half a megabyte of text."""
POOL = 4096
"""Points sampled of each, as many as ``load_clouds`` samples."""


class Caching(NamedTuple):
    """What caching took: seconds of time, and of the processors, this process's and its workers' together."""

    seconds: float
    processor: float


def compare_caching(config: Config) -> Iterator[Report]:
    """The same meshes sampled into a new cache twice: by this process alone, and by a worker a core."""
    count = QUICK if config.quick else MESHES
    with TemporaryDirectory() as folder:
        meshes = Path(folder, "Tori1")
        size = write_meshes(meshes, count)
        processes = sorted({0, usable_cores()})
        found = {n: cache_meshes(meshes, Path(folder, f"{n}.h5"), n) for n in processes}
    yield caching_report(f"Cold caching of {count:,} meshes of {size / 1e6:.2f} MB", found)


def caching_report(title: str, found: dict[int, Caching]) -> Report:
    """The table, by the number of workers; the first row is this process alone, with none."""
    alone = found[0].seconds
    rows, lines = [], []
    for workers, (seconds, processor) in found.items():
        figures = {"seconds": seconds, "processor_seconds": processor, "busy": processor / seconds}
        rows.append({"comparison": title, "workers": workers, **figures, "ratio": alone / seconds})
        name = f"{workers} workers, their start included" if workers else "this process alone"
        speed_up = f"{alone / seconds:.2f} ×" if workers else ""
        lines.append([name, f"{seconds:.1f}", f"{processor:.1f}", f"{processor / seconds:.2f}", speed_up])
    head = ["processes", "seconds", "of the processors", "cores busy", "as fast"]
    return Report(title, rows, markdown(head, lines))


def write_meshes(folder: Path, count: int) -> int:
    """Write ``count`` meshes, a tenth of them for testing, in ModelNet's layout; gives the bytes of each.

    They are one file under many names, which take no room, but each name has samples of its own.
    """
    around, along = SECTIONS
    text = creation.torus(1, 0.3, major_sections=around, minor_sections=along).export(file_type="off")
    assert isinstance(text, str)
    first = folder / "torus" / "test" / "torus_0000.off"
    for split in ("train", "test"):
        (folder / "torus" / split).mkdir(parents=True)
    first.write_text(text, encoding="ascii")
    for number in range(1, count):
        split = "train" if number % 10 else "test"
        os.link(first, folder / "torus" / split / f"torus_{number:04d}.off")
    return first.stat().st_size


def cache_meshes(meshes: Path, file: Path, workers: int) -> Caching:
    """Sample the meshes of a folder into the new cache ``file``, with so many workers; 0: in this process."""
    processor, start = _processor_time(), perf_counter()
    build_cache(file, lambda: find_meshes(meshes), pool=POOL, seed=0, workers=workers, progress=False)
    return Caching(perf_counter() - start, _processor_time() - processor)


def _processor_time() -> float:
    """Seconds of the processors so far, of this process and of its children that have ended."""
    children = os.times()  # counts in ticks of some 10 ms, too coarse for this process's share of a short run
    return process_time() + children.children_user + children.children_system
