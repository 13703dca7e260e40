"""Weights that are set anew at every call of their module, where they are read and there is no call."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

__all__ = ["run_pre_hooks"]

Module = TypeVar("Module", bound=nn.Module)


def run_pre_hooks(module: Module, *inputs: Any) -> Module:
    """Run the forward pre-hooks; gives ``module``, with the weights that a call would use.

    Pruning and torch's older weight and spectral norms compute a weight in a forward pre-hook. A layer that
    reads weights runs these hooks itself, once a call of its own, ahead of reading: the weight would be that
    of an earlier state otherwise, and its graph one that a backward pass has freed.

    Args:
        module: Whose weights are read next.
        *inputs: What a call would be given, or what there is of it. Hooks see this, but cannot change it.
    """
    for key, hook in tuple(module._forward_pre_hooks.items()):
        if key in module._forward_pre_hooks_with_kwargs:
            hook(module, inputs, {})
        else:
            hook(module, inputs)
    return module
