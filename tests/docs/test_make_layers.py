"""The page of layers is what the code says."""

import runpy
from pathlib import Path

import pytest
import torch_geometric

from mgic_geo.benchmark.pyg_layers import layer_classes
from mgic_geo.graph.grouped.fast import FAST

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = runpy.run_path(str(DOCS / "make_layers.py"))


def test_the_page_is_current():
    page = (DOCS / "layers.md").read_text(encoding="utf-8")
    if f"PyG {torch_geometric.__version__}." not in page:
        pytest.skip("the page is of another version of PyG")
    assert page == SCRIPT["table"]()


def test_every_layer_has_its_row(tmp_path, monkeypatch):
    file = tmp_path / "layers.md"
    monkeypatch.setattr("sys.argv", ["make_layers.py", "--output", str(file)])
    SCRIPT["main"]()
    rows = [line.split(" | ") for line in file.read_text().splitlines() if line.startswith("| ")][1:]
    paths = {row[0].removeprefix("| "): row[1] for row in rows}
    assert paths == {conv.__name__: "fast" if conv in FAST else "general" for conv in layer_classes()}
