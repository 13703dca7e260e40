"""Exponents are those of power laws, and a cliff is seen."""

from dataclasses import replace

import pytest

from mgic_geo.benchmark.growth import compare_growth, growth_report


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_power_law(exponent):
    report = growth_report("points", "4 clouds", {n: 3.0 * n**exponent for n in (256, 512, 2048)})
    found = report.rows[-1]
    assert found["exponent"] == pytest.approx(exponent)
    assert found["steepest"] == pytest.approx(exponent)
    assert report.verdicts[0].met
    assert f"| 2,048 | {3 * 2048**exponent:.0f} | {exponent:.2f} |" in report.text


def test_cliff():
    (verdict,) = growth_report("clouds", "256 points", {1: 1.0, 2: 2.0, 4: 16.0, 8: 32.0}).verdicts
    assert not verdict.met
    assert verdict.value == pytest.approx(3)
    assert verdict.measured == "3.00; of all 1.80"


def test_one_size_has_no_exponent():
    report = growth_report("clouds", "256 points", {4: 2.0})
    assert not report.verdicts
    assert [row["size"] for row in report.rows] == [4]


def test_growth(tiny):
    points, clouds = compare_growth(replace(tiny, rounds=1))
    assert [row.get("size") for row in points.rows] == [12, 24, None]
    assert [row.get("size") for row in clouds.rows] == [1, 2, None]  # one cloud alone is a batch
    assert all(row["median_ms"] > 0 for row in points.rows[:-1])
