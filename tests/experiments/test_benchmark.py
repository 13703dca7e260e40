"""The benchmark: every model takes its turns, and the figures agree with one another."""

import json

import pytest
import torch

from mgic_geo.benchmark import PARTS

SMALL = ["--batch-size", "2", "--points", "32", "--images", "2", "--channels", "64", "--pixels", "4"]


@pytest.mark.parametrize(
    ("part", "first"),
    [
        ("points", "MGIC-DGCNN (16, 32)"),
        ("blocks", "MGIC block (16, 32)"),
    ],
)
def test_benchmark(script, tmp_path, capsys, part, first):
    file = tmp_path / "times.json"
    flags = ["--parts", part, *SMALL, "--rounds", "2", "--device", "cpu", "--output", str(file)]
    script("benchmark")(flags)
    content = json.loads(file.read_text())
    ((found, rows),) = content["rows"].items()
    assert found == part
    assert rows[0]["model"] == first
    assert rows[0]["ratio"] == 1
    medians = {(row["comparison"], row["model"]): row["median_ms"] for row in rows}
    for row in rows:
        low, high = row["quartiles_ms"]
        assert 0 < low <= row["median_ms"] <= high
        assert row["ratio"] == pytest.approx(row["median_ms"] / medians[row["comparison"], row["than"]])
        assert row["times_floor"] == pytest.approx(row["median_ms"] / row["floor_ms"])
    printed = capsys.readouterr().out
    assert all(f"\n| {name} | " in printed for _, name in medians)
    assert ("All bars" in printed) == bool(content["bars"])
    for bar in content["bars"]:
        assert bar["met"] == (bar["value"] <= bar["bar"] if bar["at_most"] else bar["value"] >= bar["bar"])
        assert f"| {bar['what']} | {bar['measured']} |" in printed
    assert content["machine"]["versions"]["torch"]
    assert content["rates"]["multiply_adds"] > 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rounds", "0", "--k", "300"], "--rounds is 0; give 1 or more\n       --k is 300, but there are"),
        (["--parts"], "--parts is empty; give some of knn, edge_conv"),
        (["--output", "."], "--output . is a folder; name a file in it"),
    ],
)
def test_bad_values_are_refused(script, refused, flags, message):
    assert message in refused(script("benchmark"), flags)


def test_quick_says_that_bars_are_not_for_it(script, capsys):
    script("benchmark")(["--quick", "--parts", "edge_conv", *SMALL, "--rounds", "1"])
    assert "All bars (made for the full sizes, not for these)" in capsys.readouterr().out


def test_products_and_convolutions_are_of_one_precision(script, monkeypatch):
    def seen(config):
        yield from ()
        found.extend([torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32])

    found, before = [], torch.backends.cudnn.allow_tf32
    monkeypatch.setitem(PARTS, "growth", seen)
    torch.backends.cudnn.allow_tf32 = True
    script("benchmark")(["--parts", "growth", "--device", "cpu"])
    torch.backends.cudnn.allow_tf32 = before
    assert found == ["highest", False]


def test_layers(script, tmp_path, capsys):
    file = tmp_path / "times.json"
    flags = ["--parts", "layers", "--points", "16", "--k", "2", "--layers", "GCNConv", "GATConv"]
    script("benchmark")([*flags, "--rounds", "1", "--new-graphs", "--output", str(file)])
    rows = json.loads(file.read_text())["rows"]["layers"]
    assert [row["layer"] for row in rows] == ["GATConv", "GCNConv"]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["general_ms"] / row["fast_ms"])
    mean = (rows[0]["ratio"] * rows[1]["ratio"]) ** 0.5
    assert f"| geometric mean | | | {mean:.1f} |" in capsys.readouterr().out


def test_loading(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mgic_geo.benchmark.caching.QUICK", 20)
    file = tmp_path / "figures.json"
    script("benchmark")(["--quick", "--parts", "loading", *SMALL, "--rounds", "2", "--output", str(file)])
    *parts, outside = [row for row in json.loads(file.read_text())["rows"]["loading"] if "part" in row]
    assert sum(row["share"] for row in parts) == pytest.approx(1)
    assert outside["share"] == pytest.approx(parts[-1]["share"] + parts[-2]["share"])
    assert (
        f"| outside the model | {outside['ms']:.3g} | {100 * outside['share']:.1f} %"
        in capsys.readouterr().out
    )
