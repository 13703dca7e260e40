import sys

import compiled
import pytest
import torch

from mgic_geo.native import plain_torch, run

module = sys.modules["mgic_geo.native.run"]


def inputs(x):
    """Of the mean and variance of rows of 16 channels."""
    mean, var, work = torch.empty(3, 32).unbind()
    return x, x.size(0), 16, mean[:16], var[:16], work


@compiled.needed
def test_writes_into_tensors():
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    x, *sizes, mean, var, work = inputs(x)
    assert run("norm_moments", x, *sizes, mean, var, work) is None
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(var, x.var(0, correction=0))
    with plain_torch():  # a step that has begun is finished
        mean.zero_()
        run("norm_moments", x, *sizes, mean, var, work)
    torch.testing.assert_close(mean, x.mean(0))


@compiled.needed
@pytest.mark.parametrize("x", [torch.randn(16, 20).t(), torch.empty(20, 16, device="meta")])
def test_memory_that_cannot_be_read(x):
    with pytest.raises(AssertionError):
        run("norm_moments", *inputs(x))


@compiled.needed
def test_a_wrong_call():
    with pytest.raises(AttributeError, match="mgic_nothing"):
        run("nothing")
    with pytest.raises(TypeError, match="at least 7 arguments"):
        run("norm_moments", torch.zeros(2, 16))


def test_no_kernels(monkeypatch):
    monkeypatch.setattr(module, "load", lambda: (None, "no compiler"))
    with pytest.raises(RuntimeError, match="there is no kernel norm_moments"):
        run("norm_moments", *inputs(torch.zeros(2, 16)))
