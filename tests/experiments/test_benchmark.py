"""The benchmark: every model takes its turns, and the figures agree with one another."""

import json

import pytest


@pytest.mark.parametrize(
    ("flags", "first"),
    [
        (["--parts", "points", "--batch-size", "2", "--points", "32"], "MGIC-DGCNN (16, 32)"),
        (["--parts", "images", "--images", "2"], "MGIC-ResNet-56 (8, 16), channels last"),
    ],
)
def test_benchmark(script, tmp_path, capsys, flags, first):
    file = tmp_path / "times.json"
    script("benchmark")([*flags, "--rounds", "2", "--output", str(file)])
    ((part, rows),) = json.loads(file.read_text())["rows"].items()
    assert part == flags[1]
    assert rows[0]["model"] == first
    assert rows[0]["ratio"] == 1
    for row in rows:
        low, high = row["quartiles_ms"]
        assert 0 < low <= row["median_ms"] <= high
        assert row["ratio"] == pytest.approx(row["median_ms"] / rows[0]["median_ms"])
    printed = capsys.readouterr().out
    assert all(f"| {row['model']} | {row['median_ms']:.0f} |" in printed for row in rows)


def test_layers(script, tmp_path, capsys):
    file = tmp_path / "times.json"
    flags = ["--parts", "layers", "--points", "16", "--k", "2", "--layers", "GCNConv", "GATConv"]
    script("benchmark")([*flags, "--rounds", "1", "--output", str(file)])
    rows = json.loads(file.read_text())["rows"]["layers"]
    assert [row["layer"] for row in rows] == ["GATConv", "GCNConv"]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["general_ms"] / row["fast_ms"])
    mean = (rows[0]["ratio"] * rows[1]["ratio"]) ** 0.5
    assert f"| geometric mean | | | {mean:.1f} |" in capsys.readouterr().out
