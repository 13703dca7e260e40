"""Meshes are cached without workers and with one a core, to the same clouds, and speed-ups are of times."""

from dataclasses import replace

import pytest

from mgic_geo.benchmark import caching
from mgic_geo.benchmark.caching import Caching, cache_meshes, caching_report, compare_caching, write_meshes
from mgic_geo.datasets import read_clouds
from mgic_geo.datasets.sources import find_meshes


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(caching, "SECTIONS", (6, 5))
    monkeypatch.setattr(caching, "POOL", 8)
    monkeypatch.setattr(caching, "MESHES", 40)
    monkeypatch.setattr(caching, "QUICK", 20)


def test_meshes(tmp_path):
    size = write_meshes(tmp_path / "Tori1", 20)
    meshes = find_meshes(tmp_path / "Tori1").meshes
    assert {mesh.size for mesh in meshes} == {size}
    assert [mesh.name for mesh in meshes if mesh.split == "test"] == ["torus_0000", "torus_0010"]
    assert len(meshes) == 20


def test_workers_give_the_same_clouds(tmp_path):
    write_meshes(tmp_path / "Tori1", 20)
    files = [tmp_path / f"{workers}.h5" for workers in (0, 2)]
    for workers, file in zip((0, 2), files, strict=True):
        took = cache_meshes(tmp_path / "Tori1", file, workers)
        assert took.seconds > 0
        assert took.processor > 0
    assert files[0].read_bytes() == files[1].read_bytes()
    train = read_clouds(files[0], "train")
    assert train.points.shape == (18, 8, 3)
    assert not train.points[0].equal(train.points[1])  # the same mesh, but each name has its own samples


def test_report():
    report = caching_report("Caching", {0: Caching(12.0, 11.4), 4: Caching(4.0, 14.0)})
    assert [row["workers"] for row in report.rows] == [0, 4]
    assert [row["ratio"] for row in report.rows] == [1, 3]
    assert [row["busy"] for row in report.rows] == [pytest.approx(0.95), pytest.approx(3.5)]
    assert "| this process alone | 12.0 | 11.4 | 0.95 |  |" in report.text
    assert "| 4 workers, their start included | 4.0 | 14.0 | 3.50 | 3.00 × |" in report.text
    assert not report.verdicts


@pytest.mark.parametrize("quick", [True, False])
def test_all_cores_take_part(tiny, monkeypatch, quick):
    asked = []

    def cache_meshes(meshes, file, workers):
        asked.append((len(find_meshes(meshes).meshes), workers))
        return Caching(1.0, 1.0)

    monkeypatch.setattr(caching, "cache_meshes", cache_meshes)
    monkeypatch.setattr(caching, "usable_cores", lambda: 3)
    (report,) = compare_caching(replace(tiny, quick=quick))
    count = 20 if quick else 40
    assert asked == [(count, 0), (count, 3)]
    assert report.title.startswith(f"Cold caching of {count} meshes")
