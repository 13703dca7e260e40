"""Activations from what users give."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn
from torch_geometric.nn.resolver import activation_resolver

__all__ = ["Act", "resolve_act"]

Act = str | type[nn.Module] | Callable[[Tensor], Tensor] | None
"""A name of PyG's resolver, a module or its class, a function, or None for no activation."""


def resolve_act(act: Act) -> nn.Module:
    """What computes the activation: a new module of a name or class, else ``act`` as it is.

    Raises:
        ValueError: On anything else, or a name that PyG's resolver does not know.
    """
    if act is None:
        return nn.Identity()
    if isinstance(act, type) and issubclass(act, nn.Module):
        return act()
    if isinstance(act, type) or not (isinstance(act, str) or callable(act)):
        raise ValueError(
            f"act must be a name such as 'relu', a module or its class, a function of a tensor or None, "
            f"got {act!r}; give act='relu' or act=None, say"
        )
    return cast(nn.Module, activation_resolver(act))  # a function stays one
