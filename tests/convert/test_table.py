from mgic_geo.convert.table import Conversion, Row

ROWS = (
    Row("a", "Linear 256 -> 256", "MGICLinear 256/128", "", (1000, 250), (4000, 1000), 0.125),
    Row("b", "Linear 3 -> 4", "", "too narrow", (16, 16), (12, 12)),
)


def test_text_and_markdown():
    report = Conversion(ROWS, (1016, 266), (4012, 1012))
    assert (report.replaced, report.left) == (ROWS[:1], ROWS[1:])
    head, first, second, total = str(report).splitlines()
    columns = "layer before after parameters after saved multiply-adds after saved error"
    assert head.split() == columns.split()
    assert first.endswith("1,000    250    75%          4,000  1,000    75%  0.125")
    assert "left: too narrow" in second
    assert "1 replaced, 1 left" in total
    assert "74%" in total
    lines = report.markdown().splitlines()
    assert len(lines) == 5
    assert lines[1].startswith("| --- | --- | --- | ---: |")
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_empty_columns_are_left_out():
    head = str(Conversion((Row("", "Linear 3 -> 4", "", "too narrow", (16, 16)),), (16, 16))).splitlines()
    assert "multiply-adds" not in head[0]
    assert "error" not in head[0]
    assert head[1].startswith("(whole)")
