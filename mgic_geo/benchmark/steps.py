"""The steps that are timed."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgic_geo.timing import Step

__all__ = ["clouds", "passes", "training_step"]


def clouds(batch_size: int, points: int, device: str = "cpu") -> Tensor:
    """(batch_size, points, 3) normal points, each cloud brought into the unit sphere."""
    x = torch.randn(batch_size, points, 3, device=device)
    return x / x.norm(dim=-1).amax(1).view(-1, 1, 1)


def training_step(
    model: nn.Module, x: Tensor, classes: int = 10, *, bf16: bool = False, compiled: bool = False
) -> Step:
    """Forward, cross-entropy, backward and AdamW on one batch.

    Args:
        model: Gives logits (B, classes).
        x: The batch, on the device of the model.
        classes: Number of classes.
        bf16: Run the forward pass in autocast of bfloat16.
        compiled: Compile the model; the first call takes the time for it.
    """
    labels = torch.randint(0, classes, (x.size(0),), device=x.device)
    # Fused where it is one kernel a step; on a CPU torch's default.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=x.is_cuda or None)
    network = torch.compile(model) if compiled else model

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(x.device.type, torch.bfloat16) if bf16 else nullcontext():
            loss = F.cross_entropy(network(x), labels)
        loss.backward()
        optimizer.step()

    return step


def passes(
    model: nn.Module,
    x: Tensor,
    *others: Any,
    bf16: bool = False,
    compiled: bool = False,
) -> Step:
    """Forward and backward, to the weights and to x, with random numbers as the output's gradient.

    Args:
        model: ``model(x, *others)`` gives a tensor.
        x: Gets a gradient.
        *others: Further inputs.
        bf16: Run the forward pass in autocast of bfloat16.
        compiled: Compile the model.
    """
    x = x.detach().clone().requires_grad_()
    with torch.no_grad():
        upstream = torch.randn_like(model(x, *others))
    network = torch.compile(model) if compiled else model

    def step() -> None:
        model.zero_grad()
        x.grad = None
        with torch.autocast(x.device.type, torch.bfloat16) if bf16 else nullcontext():
            out = network(x, *others)
        out.backward(upstream.to(out.dtype))

    return step
