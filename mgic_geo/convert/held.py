"""Who holds the modules and weights of a model beside its module tree: lists, functions, other objects.

What stands in the tree can be replaced there; what is held elsewhere, too, would stay there as it was.
"""

from __future__ import annotations

import functools
import types
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Holder", "holders"]

Holder = tuple[nn.Module, str]
"""A module of the tree, and the attribute of it, as text, through which something is held."""

_TREE = {"_modules", "_parameters", "_buffers"}
# An optimiser must be made anew in any case.
_CLOSED = (str, bytes, int, float, Tensor, type, types.ModuleType, Optimizer)


def holders(model: nn.Module, original: nn.Module | None = None) -> Mapping[int, list[Holder]]:
    """Who holds modules and parameters of a model outside its tree, by the ids of those.

    Looked through are the attributes of all modules, and in them containers, bound methods, functions with
    what they close over, and the attributes of other objects, but not of the objects in those.

    Args:
        model: The model.
        original: What it is a copy of. A copy shares its functions with the original, and what those close
            over is the original's.
    """
    shared = _counterparts(original, model) if original is not None else {}
    tree = {*model.modules(), *shared}
    found: dict[int, list[Holder]] = defaultdict(list)
    for owner in model.modules():
        for name, value in vars(owner).items():
            if name not in _TREE:
                for thing in _reachable(value, tree):
                    for part in shared.get(thing, [thing]):
                        found[id(part)].append((owner, f"{type(owner).__name__}.{name}"))
    return found


def _counterparts(original: nn.Module, copied: nn.Module) -> dict[Any, list[Any]]:
    """For each module and parameter of the original what stands for it in the copy, with all inside it."""
    modules, parameters = dict(copied.named_modules()), dict(copied.named_parameters())
    same: dict[Any, list[Any]] = {}
    for name, module in original.named_modules():
        if name in modules:
            same[module] = [*modules[name].modules(), *modules[name].parameters()]
    same.update((p, [parameters[name]]) for name, p in original.named_parameters() if name in parameters)
    return same


def _reachable(value: Any, tree: Collection[Any]) -> Iterator[nn.Module | nn.Parameter]:
    """Modules and parameters that a value holds; those of the tree are not looked into."""
    waiting: list[tuple[Any, bool]] = [(value, True)]
    seen: set[int] = set()
    while waiting:
        thing, outermost = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, nn.Module | nn.Parameter):
            yield thing
            parts = () if isinstance(thing, nn.Parameter) or thing in tree else vars(thing).values()
        elif (known := _inside(thing)) is not None:
            parts = known
        else:
            attributes = getattr(thing, "__dict__", None) if outermost else None
            parts, outermost = attributes.values() if isinstance(attributes, dict) else (), False
        waiting += [(part, outermost) for part in parts]


def _inside(thing: Any) -> Iterable[Any] | None:
    """What a container or function holds; None for any other object."""
    if isinstance(thing, _CLOSED):
        return ()
    if isinstance(thing, dict):  # another mapping may read its values from a disk
        return [*thing.keys(), *thing.values()]
    if isinstance(thing, list | tuple | set | frozenset | deque):
        return thing
    if isinstance(thing, functools.partial):
        return (thing.func, *thing.args, *thing.keywords.values())
    if isinstance(thing, types.MethodType):
        return (thing.__self__, thing.__func__)
    if isinstance(thing, types.FunctionType):
        cells = [cell for cell in thing.__closure__ or () if cell != types.CellType()]  # but empty ones
        defaults = [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        return [*(cell.cell_contents for cell in cells), *defaults]
    return None
