"""Rows and verdicts of a comparison follow from the times, whatever they are."""

from dataclasses import replace

import pytest
from torch.utils.benchmark import Measurement, TaskSpec

from mgic_geo.benchmark import comparison
from mgic_geo.benchmark.comparison import Entry, compare, milliseconds
from mgic_geo.benchmark.floor import Rates, Work


@pytest.fixture
def report(tiny, monkeypatch):
    """Three entries that take 10, 30 and 120 ms in the first round and twice as long in the second."""
    monkeypatch.setattr(type(tiny), "rates", lambda self, dtype: Rates(1000.0, 1000.0))
    seconds = {"ours": 0.01, "dense": 0.03, "peer": 0.12}

    def interleave(steps, rounds, clock, limit):
        return {n: measured([seconds[n], 2 * seconds[n]]) for n in steps}

    monkeypatch.setattr(comparison, "interleave", interleave)
    entries = [
        Entry("ours", lambda: None, Work(5, 1), floor_bar=2),
        Entry("dense", lambda: None, bar=4),
        Entry("peer", lambda: None, Work(0, 60), faster="dense", bar=3),
    ]
    return compare("Race", entries, replace(tiny, rounds=2))


def measured(times):
    return Measurement(1, times, TaskSpec(stmt="", setup=""))


def test_rows(report):
    ours, dense, peer = report.rows
    assert (ours["model"], ours["than"], ours["ratio"]) == ("ours", "ours", 1)
    assert ours["median_ms"] == pytest.approx(15)
    assert ours["quartiles_ms"] == pytest.approx((12.5, 17.5))
    assert ours["floor_ms"] == pytest.approx(5)
    assert ours["times_floor"] == pytest.approx(3)
    assert (dense["than"], dense["floor_ms"], dense["bar"]) == ("ours", None, 4)
    assert dense["ratio"] == pytest.approx(3)
    assert (peer["than"], peer["floor_ms"]) == ("dense", pytest.approx(60))
    assert peer["ratio"] == pytest.approx(4)
    assert peer["ratio_quartiles"] == pytest.approx((4, 4))


def test_verdicts(report):
    assert [(v.what, v.met) for v in report.verdicts] == [
        ("Race: ours over its floor", False),
        ("Race: ours against dense", False),
        ("Race: dense against peer", True),
    ]


def test_text(report):
    lines = report.text.splitlines()[2:]
    assert lines == [
        "| ours | 15 | 12.5 to 17.5 |  | 5 | 3.0 ×; bar ≤ 2: not met |",
        "| dense | 45 | 37.5 to 52.5 | 3.00 × (3.00 to 3.00); bar ≥ 4: not met |  |  |",
        "| peer | 180 | 150 to 210 | 4.00 × (4.00 to 4.00); bar ≥ 3: met (as long as dense) | 60 | 3.0 × |",
    ]


def test_milliseconds():
    assert [milliseconds(x) for x in (0.01234, 12.34, 1234.5)] == ["0.0123", "12.3", "1234"]
