"""Whether somebody looks at the calls of modules, or changes what they do."""

from __future__ import annotations

from torch import nn

__all__ = ["has_hooks", "observed"]


def has_hooks(*modules: nn.Module, backward: bool = True) -> bool:
    """Whether a call of one of these modules does more, or else, than its class says.

    By hooks, or by a ``forward`` that was put on the instance, as libraries do that patch modules.

    Args:
        *modules: Looked at without their parts.
        backward: Count the hooks on gradients, too.
    """
    kinds = ("forward", "forward_pre", "backward", "backward_pre") if backward else ("forward", "forward_pre")
    return any(
        "forward" in vars(module) or any(getattr(module, f"_{kind}_hooks") for kind in kinds)
        for module in modules
    )


def observed(*modules: nn.Module) -> bool:
    """Whether a step that goes round these modules would go unnoticed: by their hooks, or by those on all."""
    return bool(nn.modules.module._has_any_global_hook()) or has_hooks(*modules)
