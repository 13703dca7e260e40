from time import sleep

import pytest
import torch

from mgic_geo.graph.gpu import faster


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    monkeypatch.setattr(faster, "_CHOSEN", {})
    monkeypatch.setattr(faster, "_LONG", 10)


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


def test_long_runs_are_measured_once(monkeypatch):
    monkeypatch.setattr(faster, "_LONG", 0.01)
    runs, *both = ways()
    faster.faster("key", *both)
    assert runs.count("slow") == 2


@pytest.mark.parametrize("turned", [False, True])
def test_what_does_not_fit_has_lost(turned):
    _, slow, _ = ways()

    def too_large():
        raise torch.OutOfMemoryError

    both = [slow, too_large]
    for _ in range(2):
        assert faster.faster("key", *(both[::-1] if turned else both)).sum() == 2


def test_where_nothing_fits_the_next_call_tries_again():
    room = []

    def large():
        if not room:
            raise torch.OutOfMemoryError
        return torch.ones(2)

    with pytest.raises(torch.OutOfMemoryError):
        faster.faster("key", large, large)
    assert not faster._CHOSEN
    room.append(1)
    assert faster.faster("key", large, large).sum() == 2
