"""Section 4.4's claim, counted at all widths, and the script for a few."""

import json
import sys

import pytest
import torch
from matplotlib.image import imread

from mgic_geo import scaling


@pytest.mark.parametrize("part", ["images", "graphs"])
def test_script(script, tmp_path, capsys, part):
    output = tmp_path / "out"
    flags = ["--parts", part, "--widths", "16", "32", "64", "--rounds", "1", "--nodes", "30", "--images", "1"]
    script("scaling")([*flags, "--output", str(output)])
    curves = json.loads((output / "scaling.json").read_text())
    blocks = {"images": ["residual block, 3×3"], "graphs": ["SAGEConv", "EdgeConv"]}[part]
    assert [(c["block"], c["kind"]) for c in curves] == [(b, k) for b in blocks for k in ("MGIC", "dense")]
    for mgic, dense in zip(curves[::2], curves[1::2], strict=True):
        assert [row["width"] for row in mgic["rows"]] == [16, 32, 64]
        assert mgic["rows"][0] | {"milliseconds": 0} == dense["rows"][0] | {"milliseconds": 0}  # one level
        assert all(row["milliseconds"] > 0 for row in mgic["rows"] + dense["rows"])
    text = (output / "scaling.md").read_text()
    assert text.count("| exponent |") == len(curves)
    assert text.split("\n\n")[1] in capsys.readouterr().out
    assert imread(output / "scaling.png").shape[1] > 1000


def test_exponents_of_counts(script):
    """From 64 channels on 1 for every MGIC block, 2 for the dense ones, but for what is linear in both."""
    script("scaling")
    module = sys.modules["experiments_scaling"]
    config = module.Config(nodes=50)
    for title, (inputs, kinds) in module.blocks(config).items():
        for kind, build in kinds.items():
            on_meta = title.startswith("residual")

            def given(width, inputs=inputs, on_meta=on_meta):
                return tuple(x.to("meta") if on_meta else x for x in inputs(width))

            with torch.device("meta" if on_meta else "cpu"):
                widths = config.widths[::2] if kind == "MGIC" or on_meta else config.widths[:4]
                found = scaling(build, widths, given, timed=False).exponents
            low, high = (1, 1.05) if kind == "MGIC" else (1.9, 2)
            assert low <= found.parameters <= high + 1e-6
            assert low <= found.multiply_adds <= high + 1e-6


def test_one_width_is_no_slope(script, refused, tmp_path):
    message = refused(script("scaling"), ["--widths", "64", "--output", str(tmp_path)])
    assert "--widths 64: a slope needs two widths or more" in message
