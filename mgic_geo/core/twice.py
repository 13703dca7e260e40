"""Second derivatives of compiled steps, through torch's own operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["gradients"]


def gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of ``function(*inputs)``, which have gradients themselves.

    Args:
        function: The step in operators that torch can differentiate twice.
        inputs: What it reads, as its first derivative saved it; None stays None.
        grad: Of its output.

    Returns:
        One for each input; None for those that need none.
    """
    with torch.enable_grad():
        # Views, because one tensor may come twice.
        views = [None if x is None else x.view_as(x) for x in inputs]
        wanted = [i for i, x in enumerate(views) if x is not None and x.requires_grad]
        sought: list[Any] = [views[i] for i in wanted]
        found = torch.autograd.grad(function(*views), sought, grad, create_graph=True, allow_unused=True)
    place = dict(zip(wanted, found, strict=True))
    return tuple(place.get(i) for i in range(len(views)))
