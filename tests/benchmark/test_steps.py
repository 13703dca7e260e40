"""A training step learns; a pass leaves gradients of one pass."""

import pytest
import torch
from torch import nn

from mgic_geo.benchmark.steps import clouds, passes, training_step


def test_clouds_lie_in_the_unit_sphere():
    points = clouds(3, 20)
    assert points.shape == (3, 20, 3)
    torch.testing.assert_close(points.norm(dim=-1).amax(1), torch.ones(3))


@pytest.mark.parametrize("bf16", [False, True])
def test_training_step_learns(bf16):
    torch.manual_seed(0)
    model, x = nn.Linear(4, 10), torch.randn(8, 4)
    before = model.weight.detach().clone()
    step = training_step(model, x, bf16=bf16)
    step()
    changed = (model.weight - before).abs()
    assert 0 < changed.max() <= 1.01e-3  # AdamW's first step is as long as its rate
    assert model.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("bf16", [False, True])
def test_passes_do_not_add_up(bf16):
    model, x = nn.Linear(4, 3), torch.randn(8, 4)
    step = passes(model, x, bf16=bf16)
    step()
    first = model.weight.grad.clone()
    step()
    torch.testing.assert_close(model.weight.grad, first)
    assert x.grad is None  # the caller's tensor stays as it was


def test_compiled_steps(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    model = nn.Linear(4, 10)
    training_step(model, torch.randn(2, 4), compiled=True)()
    passes(model, torch.randn(2, 4), compiled=True)()
    assert compiled == [model, model]
