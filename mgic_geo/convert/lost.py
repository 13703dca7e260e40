"""What the replacement of a module would lose: the one place that is asked before any form is built."""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Iterator

from torch import nn
from torch.nn.parameter import is_lazy

from mgic_geo.convert.held import holders
from mgic_geo.convert.layers import is_layer

__all__ = ["Losses", "is_frozen"]


class Losses:
    """Says of a module of a model what its replacement would silently lose; empty if nothing.

    Args:
        model: The model.
        original: What it is a copy of, if it is one.
    """

    def __init__(self, model: nn.Module, original: nn.Module | None = None) -> None:
        self._owners = Counter(
            id(p) for m in model.modules() for p in m._parameters.values() if p is not None
        )
        self._holders = holders(model, original)

    def __call__(self, module: nn.Module) -> str:
        if any(map(is_lazy, module.parameters())):  # first, as these have hooks of their own
            return "its width is not known yet: run the model once first"
        if any(self._owners[id(p)] > 1 for p in module.parameters()):
            return "it shares weights with another layer"
        if any("forward" in vars(part) for part in module.modules()):
            return "its forward was replaced, which would be lost"
        if any(_has_hooks(part) for part in module.modules()):
            return "it has hooks, which would be lost"
        if holder := next(self._held(module), None):
            return f"it is also held outside the module tree, in {holder}, where it would stay"
        if not is_layer(module) and _is_mixed(module):  # a layer's bias is carried over
            return "some of it is frozen or in evaluation mode and some is not, which would be lost"
        return ""

    def _held(self, module: nn.Module) -> Iterator[str]:
        """Where the module or a part of it is held by others; what it holds itself goes with it."""
        own = dict.fromkeys(module.modules())
        for part in (*own, *module.parameters()):
            for owner, where in self._holders.get(id(part), ()):
                if owner not in own:
                    yield where


def _has_hooks(module: nn.Module) -> bool:
    """Whether a module or one of its own weights has hooks of any kind: torch's, PyG's, on gradients."""
    kinds = [k for name, k in vars(module).items() if name.endswith("_hooks") and isinstance(k, dict)]
    if any(callable(hook) and not _is_own(hook, module) for hooks in kinds for hook in hooks.values()):
        return True
    weights = [p for p in module._parameters.values() if p is not None]
    return any(
        getattr(p, name, None) for p in weights for name in ("_backward_hooks", "_post_accumulate_grad_hooks")
    )


def _is_own(hook: object, module: nn.Module) -> bool:
    """Whether a hook is a method of the module, which its class registers."""
    hook = getattr(hook, "hook", hook)  # torch wraps those that see state dicts
    return isinstance(hook, types.MethodType) and hook.__self__ is module


def _is_mixed(module: nn.Module) -> bool:
    """Whether the parts of a module differ in what an MGIC form has once: its mode, and if it is trained."""
    trained = {p.requires_grad for p in module.parameters()}
    return len(trained) > 1 or any(part.training != module.training for part in module.modules())


def is_frozen(module: nn.Module) -> bool:
    """Whether none of the maps of a module is trained, whatever its biases are."""
    maps = [p for p in module.parameters() if p.dim() > 1]
    return bool(maps) and not any(p.requires_grad for p in maps)
