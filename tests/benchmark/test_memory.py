"""The peak of a step is that of the step alone, in a process that begins with nothing."""

from functools import partial

import pytest
import torch

from mgic_geo.benchmark.memory import growth, peak_memory


def both(step):
    """What makes a small step, and the step: as a tuple, for it must be importable elsewhere."""
    return partial(tuple, [partial(torch.ones, 8), step])


def test_peak_of_a_step():
    kept = torch.ones(2**26)  # what this process has held does not count in the other
    peak = peak_memory(both(partial(torch.ones, 2**25)), threads=1)
    assert 0.97 * 2**27 < peak < 1.1 * 2**27  # the kernel counts pages of busy threads a little late
    assert kept.sum() > 0


def test_the_process_computes_in_full_float32():
    large_if_not = "(torch := __import__('torch')).ones(2**24 if torch.backends.cudnn.allow_tf32 else 8)"
    assert peak_memory(both(partial(eval, large_if_not)), threads=1) < 2**24


def test_failure_is_told(capfd):
    with pytest.raises(RuntimeError, match="ended with status 1"):
        peak_memory(both(partial(torch.ones, -1)), threads=1)
    assert "negative dimension" in capfd.readouterr().err


def test_growth_is_never_negative():
    assert growth(lambda: None, "cpu") >= 0
