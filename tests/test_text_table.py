"""Columns stand below each other, and tables are Markdown."""

from mgic_geo.text_table import aligned, markdown


def test_aligned():
    rows = [["name", "class", "n"], ["a", "long name", "1,000"], ["b", "", ""]]
    assert aligned(rows).splitlines() == ["name      class      n", "a     long name  1,000", "b"]
    assert aligned(rows, left=2).splitlines() == ["name  class          n", "a     long name  1,000", "b"]


def test_markdown():
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --: |\n| 1 | 2 |"
    assert markdown(["a", "b"], [], left=0, right="---:") == "| a | b |\n| ---: | ---: |"
