"""The parts on points run, with every peer that is there, and bars stand beside the right rows."""

from dataclasses import replace

import pytest

from mgic_geo.benchmark import points
from mgic_geo.benchmark.points import (
    DENSE,
    MGIC,
    PLAIN,
    PYG,
    compare_edge_conv,
    compare_knn,
    compare_networks,
    compare_wide,
)


@pytest.fixture(params=[True, False])
def cluster(request, monkeypatch):
    """With torch-cluster where it is installed, and as if it were not."""
    if request.param:
        pytest.importorskip("torch_cluster")
    monkeypatch.setattr(points, "cluster_runs", lambda device: request.param)
    return request.param


def test_knn(tiny, cluster):
    reports = list(compare_knn(tiny))
    assert [report.title.split(", ")[2] for report in reports] == [
        "3 dimensions", "64 dimensions", "128 dimensions"
    ]  # fmt: skip
    bars = [verdict.bar for report in reports for verdict in report.verdicts]
    assert bars == ([1, 10, 10] if cluster else [])
    rates = tiny.rates()
    # All pairs of 24 points in each of two clouds; 64 values and one comparison a pair, at the rate of bytes.
    assert reports[1].rows[0]["floor_ms"] >= 1e3 * 2 * 24**2 * 65 / 4 / rates.multiply_adds


def test_edge_conv(tiny):
    (report,) = compare_edge_conv(tiny)
    by_name = {row["model"]: row for row in report.rows}
    assert by_name["PyG EdgeConv"]["bar"] == 10
    assert len({row["floor_ms"] for row in report.rows}) == 1  # they compute the same
    assert [v.what.split(": ")[1] for v in report.verdicts] == ["EdgeConv against PyG EdgeConv"]


def test_networks(tiny, cluster):
    (report,) = compare_networks(tiny)
    rows = {row["model"]: row for row in report.rows}
    assert list(rows) == [MGIC, DENSE, PLAIN, *([PYG] if cluster else [])]
    assert (rows[DENSE]["than"], rows[PLAIN]["than"]) == (MGIC, DENSE)
    assert rows[PLAIN]["floor_ms"] == rows[DENSE]["floor_ms"] != rows[MGIC]["floor_ms"]
    assert rows[PLAIN]["ratio"] == pytest.approx(rows[PLAIN]["median_ms"] / rows[DENSE]["median_ms"])
    assert [v.bar for v in report.verdicts] == [5, 1.2, 7, *([10] if cluster else [])]


def test_wide(tiny):
    (report,) = compare_wide(replace(tiny, wide=2))
    assert "widths 128-128-256-512," in report.title
    assert [row["model"] for row in report.rows] == [MGIC, DENSE]
    assert [v.bar for v in report.verdicts] == [3]
