"""Sizes and the device are settled before anything is measured."""

import pytest
import torch

from mgic_geo.benchmark import Config
from mgic_geo.benchmark.floor import measure_rates


def test_device_is_found():
    assert Config().resolved().device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert Config(device="cpu").resolved() == Config(device="cpu")


def test_quick_only_ever_lowers_sizes():
    quick = Config(quick=True, device="cpu").resolved()
    assert (quick.batch_size, quick.rounds, quick.limit) == (4, 5, 8)
    assert max(quick.cloud_sizes) == 1024
    small = Config(quick=True, device="cpu", batch_size=2, rounds=1, images=3, limit=2).resolved()
    assert (small.batch_size, small.rounds, small.images, small.limit) == (2, 1, 3, 2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"parts": ()}, "--parts is empty; give some of knn, edge_conv, "),
        ({"rounds": 0}, "--rounds is 0; give 1 or more"),
        ({"points": 0}, "--points is 0; give 1 or more"),
        ({"channels": ()}, "--channels is empty; give ascending numbers from 1 on"),
        ({"cloud_sizes": ()}, "--cloud-sizes is empty; give ascending"),
        ({"batch_sizes": (4, 2)}, "--batch-sizes is 4 2; give ascending numbers from 1 on"),
        ({"k": 300}, "--k is 300, but there are clouds of 256 points; give at most that"),
        ({"layers": ("GCNConv", "NoConv")}, "--layers: no fast path for NoConv; give some of APPNP, "),
    ],
)
def test_bad_values(given, words):
    (problem,) = Config(**given).problems()
    assert problem.startswith(words)


def test_missing_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (problem,) = Config(device="cuda").problems()
    assert problem == "--device cuda, but PyTorch sees no GPU here; use --device cpu"


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ValueError, match=r"--k is 0; .*; --rounds is 0; .*; --channels is 0; "):
        Config(rounds=0, k=0, channels=(0,)).resolved()


def test_rates_are_by_the_same_clock(monkeypatch):
    seen = []
    monkeypatch.setattr("mgic_geo.benchmark.config.measure_rates", lambda *given: seen.append(given))
    Config(device="cpu").rates()
    Config(device="cpu", clock="cpu").rates(torch.bfloat16)
    assert seen == [("cpu", "wall", torch.float32), ("cpu", "cpu", torch.bfloat16)]
    assert callable(measure_rates)
