"""The parts on images run, and the blocks of all libraries are of one size."""

import pytest
import torch

from mgic_geo.benchmark import images
from mgic_geo.benchmark.images import compare_blocks, compare_images, dense_blocks


def test_dense_blocks_are_the_same_block():
    made = {name: build(8) for name, build in dense_blocks().items()}
    assert len({sum(p.numel() for p in block.parameters()) for block in made.values()}) == 1
    x = torch.randn(2, 8, 4, 4)
    reference = next(iter(made.values()))
    for block in made.values():
        values = [value.clone() for value in reference.state_dict().values()]
        block.load_state_dict(dict(zip(block.state_dict(), values, strict=True)))
        torch.testing.assert_close(block.eval()(x), reference.eval()(x))


def test_dense_blocks_without_libraries(monkeypatch):
    monkeypatch.setattr(images, "installed", lambda package: False)
    assert list(dense_blocks()) == ["dense block"]


def test_blocks(tiny, monkeypatch):
    monkeypatch.setattr(images, "BLOCK_BARS", {64: 3})
    report, _first = compare_blocks(tiny)
    rows = {row["model"]: row for row in report.rows}
    assert list(rows) == ["MGIC block (16, 32)", *dense_blocks()]
    assert rows["dense block"]["bar"] == 3
    assert rows["torchvision BasicBlock"]["floor_ms"] == rows["dense block"]["floor_ms"]
    assert [v.bar for v in report.verdicts] == [3]


def test_images(tiny):
    (report,) = compare_images(tiny)
    rows = {row["model"]: row for row in report.rows}
    ours, theirs = "MGIC-ResNet-56 (8, 16), channels", "ResNet-56, channels"
    assert list(rows) == [f"{name} {order}" for order in ("last", "first") for name in (ours, theirs)]
    for order in ("last", "first"):
        row = rows[f"{theirs} {order}"]
        assert row["ratio"] == pytest.approx(row["median_ms"] / rows[f"{ours} {order}"]["median_ms"])
    assert len(report.verdicts) == 1
