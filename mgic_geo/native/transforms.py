"""Whether somebody follows the operators that run now, or differentiates them by other means than ours."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

__all__ = ["followed", "in_transform"]


def followed() -> bool:
    """Whether somebody follows torch's operators, so that these must run and no form of our own.

    That is a compiler, a trace, a transform of ``torch.func``, or a dispatch mode: it counts or fakes them.
    """
    return (
        torch.compiler.is_compiling()
        or _get_current_dispatch_mode() is not None
        or in_transform()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
    )


def in_transform() -> bool:
    """Whether a transform of ``torch.func`` (grad, jvp, vmap, ...) or forward-mode autograd is at work.

    Neither follows an autograd function that has a ``backward`` alone, so layers then take plain operators.
    Compiled code does so anyway, and cannot ask.
    """
    if torch.compiler.is_compiling():
        return False
    # torch has no public question for either.
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
