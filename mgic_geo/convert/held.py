"""Who holds the modules and weights of a model beside its module tree: lists, functions, other objects.

What stands in the tree can be replaced there; what is held elsewhere, too, would stay there as it was.
"""

from __future__ import annotations

import functools
import types
import weakref
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
_PLAIN = {str, int, float, bool, types.NoneType, *weakref.ProxyTypes}


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
    reached: dict[int, list[nn.Module | nn.Parameter]] = {}  # modules may share what they hold
    for owner in model.modules():
        for name, value in vars(owner).items():
            if name in _TREE or _is_plain(value):
                continue
            if id(value) not in reached:
                reached[id(value)] = [*_reachable(value, tree)]
            for thing in reached[id(value)]:
                whose = " of the original (inplace=True may help)" if thing in shared else ""
                for part in shared.get(thing, [thing]):
                    found[id(part)].append((owner, f"{type(owner).__name__}.{name}{whose}"))
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
        waiting += [(part, outermost) for part in parts if not _is_plain(part)]


def _is_plain(thing: Any) -> bool:
    """Whether it holds nothing; of a weak reference, which may be dead, the type alone tells."""
    return type(thing) in _PLAIN or (isinstance(thing, _CLOSED) and not isinstance(thing, nn.Parameter))


def _inside(thing: Any) -> Iterable[Any] | None:
    """What a container or function holds; None for any other object."""
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
        held = [cell.cell_contents for cell in cells]
        return [*(value for value in held if not _reads_settings(thing.__code__, value)), *defaults]
    return None


def _reads_settings(code: types.CodeType, module: Any) -> bool:
    """Whether code that closes over a module only reads plain values of it: ``lambda x: x * self.scale``."""
    if not isinstance(module, nn.Module):
        return False
    read = [getattr(module, name) for name in _names(code) if hasattr(module, name)]
    return bool(read) and all(_is_plain(value) for value in read)


def _names(code: types.CodeType) -> set[str]:
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return {*code.co_names}.union(*map(_names, inner))
