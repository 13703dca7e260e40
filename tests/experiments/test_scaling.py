"""Section 4.4's claim, counted at all widths, and the script for a few."""

import json
import sys

import pytest
import torch
from matplotlib.image import imread

from mgic_geo import scaling


@pytest.fixture(autouse=True)
def threads():
    """As many threads as before, behind each test."""
    number = torch.get_num_threads()
    yield
    torch.set_num_threads(number)


@pytest.mark.parametrize("part", ["images", "graphs"])
def test_script(script, tmp_path, capsys, part):
    output = tmp_path / "out"
    flags = ["--parts", part, "--widths", "16", "32", "64", "--rounds", "1", "--nodes", "30", "--images", "1"]
    flags += ["--processor-time", "--threads", "1"] if part == "images" else []
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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--widths", "64"], "--widths is 64; give two or more different ones"),
        (["--widths", "4", "0"], "--widths is 4 0; give two or more different ones, of 1 or more"),
        (["--widths", "4", "8", "--rounds", "0"], "--rounds is 0; give 1 or more"),
        (["--images", "0", "--nodes", "0"], "--images is 0; give 1 or more"),
        (["--images", "0", "--nodes", "0"], "--nodes is 0; give 1 or more"),
        (["--parts"], "--parts is empty; give images, graphs or both"),
        (["--widths"], "--widths is empty; give two or more different ones"),
        (["--widths", "4", "8", "--threads", "0"], "--threads is 0; give 1 or more"),
        (["--widths", "4", "8", "--image-sizes", "0", "8"], "--image-sizes is 0 8; give 1 or more each"),
    ],
)
def test_errors_name_value_and_remedy(script, refused, tmp_path, flags, message):
    assert message in refused(script("scaling"), [*flags, "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_another_run_is_not_overwritten(script, refused, tmp_path):
    flags = ["--parts", "images", "--widths", "8", "16", "--rounds", "1", "--images", "1"]
    main = script("scaling")
    main([*flags, "--output", str(tmp_path)])
    assert "already holds a run with other settings" in refused(
        main, [*flags, "--rounds", "2", "--output", str(tmp_path)]
    )
