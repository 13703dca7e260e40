"""Whether torch differentiates or maps what runs now by a transform that our own gradients do not serve."""

from __future__ import annotations

import torch

__all__ = ["in_transform"]


def in_transform() -> bool:
    """Whether a transform of ``torch.func`` (grad, jvp, vmap, ...) or forward-mode autograd is at work.

    Neither follows an autograd function that has a ``backward`` alone, so layers then take plain operators.
    Compiled code does so anyway, and cannot ask.
    """
    if torch.compiler.is_compiling():
        return False
    # torch has no public question for either.
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
