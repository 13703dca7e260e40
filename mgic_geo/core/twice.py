"""Gradients of compiled steps through torch's own operators: for second derivatives, above all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mgic_geo.native import applies

__all__ = ["gradients", "must_use_torch", "needs_double_backward"]


def must_use_torch(grad: Tensor) -> bool:
    """Whether a backward pass takes torch's operators: it is differentiated itself, or no kernel applies."""
    return needs_double_backward(grad) or not applies(grad)


def needs_double_backward(grad: Tensor) -> bool:
    """Whether a backward pass is differentiated itself, or runs for many gradients at once."""
    # Batched gradients (is_grads_batched) come under an older vmap, which nothing else tells.
    batched = torch._C._functorch.is_legacy_batchedtensor(grad)  # type: ignore[attr-defined]
    return torch.is_grad_enabled() or batched


def gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of ``function(*inputs)``, which have gradients themselves where those are recorded.

    Args:
        function: The step in operators that torch can differentiate twice.
        inputs: What it reads, as its first derivative saved it; None stays None.
        grad: Of its output.

    Returns:
        One for each input; None for those that need none.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, because one tensor may come twice.
        views = [None if x is None else x.view_as(x) for x in inputs]
        wanted = [i for i, x in enumerate(views) if x is not None and x.requires_grad]
        sought: list[Any] = [views[i] for i in wanted]
        if not sought:
            return (None,) * len(views)
        found = torch.autograd.grad(function(*views), sought, grad, create_graph=again, allow_unused=True)
    place = dict(zip(wanted, found, strict=True))
    return tuple(place.get(i) for i in range(len(views)))
