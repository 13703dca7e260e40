"""Columns stand below each other, and tables are Markdown."""

import math

from mgic_geo.text_table import aligned, markdown, padded, percent


def test_aligned():
    rows = [["name", "class", "n"], ["a", "long name", "1,000"], ["b", "", ""]]
    assert aligned(rows).splitlines() == ["name      class      n", "a     long name  1,000", "b"]
    assert aligned(rows, left=2).splitlines() == ["name  class          n", "a     long name  1,000", "b"]


def test_padded():
    assert padded([["a", "12"], ["bc", "3"]]) == [["a ", "12"], ["bc", " 3"]]


def test_markdown():
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --: |\n| 1 | 2 |"
    assert markdown(["a", "b"], [], left=0, right="---:") == "| a | b |\n| ---: | ---: |"


def test_percent():
    assert (percent(0.0625), percent(1.0, "%")) == ("6.2 %", "100.0%")
    assert percent(None) == percent(math.nan) == "–"
