"""What passes outside the model is all of the epoch but forward, loss, backward and the optimiser's step."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mgic_geo.benchmark import loading
from mgic_geo.benchmark.caching import Caching
from mgic_geo.benchmark.loading import (
    BATCHES,
    MODEL,
    REST,
    Stopwatch,
    compare_epoch,
    compare_loading,
    epoch_report,
)


class Clock:
    """Says what time it is set to."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock(monkeypatch):
    """The clock of all stopwatches: it stands still, unless moved."""
    clock = Clock()
    monkeypatch.setattr(loading.time, "perf_counter", clock)
    return clock


def test_stopwatch(clock):
    watch = Stopwatch("cpu")
    with watch.part("a"):
        clock.time += 5
    watch.start()
    for _ in range(2):
        with watch.part("a"):
            clock.time += 1
        clock.time += 10
        with watch.part("b"):
            clock.time += 2
    watch.stop()
    assert watch.seconds == {"a": 2, "b": 4}
    assert watch.total == 26


def test_stopwatch_by_the_processor(monkeypatch):
    monkeypatch.setattr(loading.time, "process_time", lambda: 7.0)
    assert Stopwatch("cpu", "cpu").now() == 7


def test_report():
    seconds = {MODEL[0]: 2.0, MODEL[1]: 5.0, MODEL[2]: 1.0, BATCHES: 0.5}
    report = epoch_report("Epoch", seconds, total=10.0, steps=4)
    assert [row["share"] for row in report.rows] == pytest.approx([0.2, 0.5, 0.1, 0.05, 0.15, 0.2])
    assert [row["ms"] for row in report.rows] == pytest.approx([500, 1250, 250, 125, 375, 500])
    assert sum(row["ms"] for row in report.rows[:5]) == pytest.approx(2500)
    (verdict,) = report.verdicts
    assert not verdict.met
    assert "| outside the model | 500 | 20.0 %; bar ≤ 0.03: not met |" in report.text
    assert epoch_report("Epoch", seconds, total=8.2, steps=4).verdicts[0].met


class Model(nn.Module):
    """A network that takes 3 seconds forward and 5 backward, and is asked for points of the right shape."""

    def __init__(self, clock, shape):
        super().__init__()
        self.weight, self.clock, self.shape = nn.Parameter(torch.zeros(3, 10)), clock, shape

    def forward(self, points):
        assert points.shape == self.shape
        self.clock.time += 3
        logits = points.mean(1) @ self.weight
        logits.register_hook(lambda _: setattr(self.clock, "time", self.clock.time + 5))
        return logits


def test_epoch(tiny, clock, monkeypatch):
    """Through the real trainer, by a clock that moves in the model, the optimiser and the batches only."""
    config = replace(tiny, rounds=3)
    augment = loading.AUGMENT

    def augmented(points, generator):
        clock.time += 0.25
        return augment(points, generator)

    step = torch.optim.AdamW.step

    def stepped(optimizer, closure=None):
        loss = step(optimizer, closure)
        clock.time += 2
        return loss

    monkeypatch.setattr(loading, "AUGMENT", augmented)
    monkeypatch.setattr(torch.optim.AdamW, "step", stepped)
    monkeypatch.setattr(loading, "NETWORKS", {loading.MGIC: lambda *_: Model(clock, (2, 24, 3))})
    (report,) = compare_epoch(config)
    assert [row["part"] for row in report.rows] == [*MODEL, BATCHES, REST, "outside the model"]
    assert [row["ms"] for row in report.rows] == pytest.approx([3000, 5000, 2000, 250, 0, 250])
    assert report.rows[-1]["share"] == pytest.approx(0.25 / 10.25)
    assert clock.time == pytest.approx(2 * 48 * 10.25)  # a second epoch went before


def test_loading(tiny, monkeypatch, capsys):
    monkeypatch.setattr("mgic_geo.benchmark.caching.cache_meshes", lambda *_: Caching(1.0, 1.0))
    epoch, caching = compare_loading(tiny)
    assert epoch.title == "Training epoch of MGIC-DGCNN (16, 32), 2 × 24, k = 4"
    figures = {row["part"]: row["ms"] for row in epoch.rows}
    assert all(value > 0 for value in figures.values())
    assert figures["outside the model"] == pytest.approx(figures[BATCHES] + figures[REST])
    assert caching.title.startswith("Cold caching of")
    assert capsys.readouterr() == ("", "")
