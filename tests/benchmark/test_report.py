"""Bars are met from the right side, and tables are Markdown."""

import pytest

from mgic_geo.benchmark.report import Verdict, verdict_table


@pytest.mark.parametrize(
    ("value", "at_most", "met"),
    [(10.0, False, True), (9.99, False, False), (10.0, True, True), (10.01, True, False)],
)
def test_verdict(value, at_most, met):
    found = Verdict("what", value, 10, at_most)
    assert found.met is met
    assert found.words == f"bar {'≤' if at_most else '≥'} 10: {'met' if met else 'not met'}"


def test_tables():
    text = verdict_table([Verdict("step", 3.0, 1.2, measured="3.0 ×"), Verdict("share", 0.5, 0.25, True)])
    assert text.splitlines()[2:] == ["| step | 3.0 × | ≥ 1.2 | met |", "| share |  | ≤ 0.25 | not met |"]
