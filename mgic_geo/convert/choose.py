"""Choosing layers by name patterns, by classes or by a predicate."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from torch import nn

__all__ = ["Match", "Predicate", "chooser"]

Predicate = Callable[[str, nn.Module], bool]
Match = str | type[nn.Module] | Iterable[str | type[nn.Module]] | Predicate | None


def chooser(match: Match, model: nn.Module) -> Predicate:
    """A predicate of a module's path and the module.

    Args:
        match: None for all; a pattern or several, in which ``*`` stands for anything, dots too: they choose
            the modules of these names and all that is inside them; a class of modules in the place of a
            pattern chooses its instances likewise; or the predicate itself.
        model: Where the names are looked up.

    Raises:
        ValueError: If a pattern fits no module's name, or a class no module.
        TypeError: If ``match`` is something else.
    """
    if match is None:
        return lambda name, module: True
    if callable(match) and not isinstance(match, type | nn.Module):
        return match
    single = isinstance(match, str | type) or not isinstance(match, Iterable)
    chosen: set[str] = set()
    for pattern in [match] if single else match:  # type: ignore[union-attr]  # what is no pattern is told
        chosen.update(_fitting(pattern, model))

    def predicate(name: str, module: nn.Module) -> bool:
        parts = name.split(".")
        return any(".".join(parts[: i + 1]) in chosen for i in range(len(parts)))

    return predicate


def _fitting(pattern: object, model: nn.Module) -> list[str]:
    """Names of the modules that one pattern or class fits."""
    named = dict(model.named_modules(remove_duplicate=False))
    if isinstance(pattern, type) and issubclass(pattern, nn.Module):
        if found := [name for name, module in named.items() if isinstance(module, pattern)]:
            return found
        raise ValueError(f"match={pattern.__name__} fits no module of the model")
    if not isinstance(pattern, str):
        raise TypeError(
            "match takes name patterns, classes of modules, or a function of a name and a module, "
            f"got {pattern!r}"
        )
    if found := [name for name in named if fnmatchcase(name, pattern)]:
        return found
    names = [*named]
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or names[1:4]
    raise ValueError(f"match={pattern!r} fits the name of no module; there are {', '.join(near)}")
