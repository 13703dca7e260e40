from time import sleep

import pytest
import torch

from mgic_geo.graph.gpu import faster


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    monkeypatch.setattr(faster, "_CHOSEN", {})


def ways():
    runs = []

    def slow():
        runs.append("slow")
        sleep(0.02)
        return torch.ones(2)

    def fast():
        runs.append("fast")
        return torch.ones(2)

    return runs, slow, fast


@pytest.mark.parametrize("turned", [False, True])
def test_the_faster_one_is_found_once(turned):
    runs, *both = ways()
    for _ in range(5):
        assert faster.faster("key", *(both[::-1] if turned else both)).sum() == 2
    assert runs.count("slow") == 4  # tried: to warm up and thrice
    assert runs.count("fast") == 4 + 5


def test_each_key_has_its_own():
    runs, *both = ways()
    faster.faster("one", *both)
    faster.faster("other", *both)
    assert runs.count("slow") == 8


def test_nothing_is_tried_where_results_must_not_vary():
    runs, *both = ways()
    torch.use_deterministic_algorithms(True)
    try:
        faster.faster("key", *both)
    finally:
        torch.use_deterministic_algorithms(False)
    assert runs == ["slow"]
