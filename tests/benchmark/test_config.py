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
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"channels": ()}, "channels must be ascending"),
        ({"batch_sizes": (4, 2)}, "batch_sizes must be ascending"),
        ({"k": 300}, "k=300 neighbours asked of clouds of 256 points"),
        ({"layers": ("GCNConv", "NoConv")}, "no fast path for NoConv; there are APPNP"),
    ],
)
def test_bad_values(given, words):
    with pytest.raises(ValueError, match=words):
        Config(**given).resolved()


def test_missing_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'cuda' is not there"):
        Config(device="cuda").resolved()


def test_rates_are_by_the_same_clock(monkeypatch):
    seen = []
    monkeypatch.setattr("mgic_geo.benchmark.config.measure_rates", lambda *given: seen.append(given))
    Config(device="cpu").rates()
    Config(device="cpu", clock="cpu").rates(torch.bfloat16)
    assert seen == [("cpu", "wall", torch.float32), ("cpu", "cpu", torch.bfloat16)]
    assert callable(measure_rates)
