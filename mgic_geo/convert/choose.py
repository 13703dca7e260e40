"""Choosing layers by name patterns or by a predicate."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from torch import nn

__all__ = ["Match", "Predicate", "chooser"]

Predicate = Callable[[str, nn.Module], bool]
Match = str | Iterable[str] | Predicate | None


def chooser(match: Match, model: nn.Module) -> Predicate:
    """A predicate of a module's path and the module.

    Args:
        match: None for all; a pattern or several, in which ``*`` stands for anything, dots too: they choose
            the modules of these names and all that is inside them; or the predicate itself.
        model: Where the names are looked up.

    Raises:
        ValueError: If a pattern fits no module's name.
    """
    if match is None:
        return lambda name, module: True
    if callable(match):
        return match
    patterns = [match] if isinstance(match, str) else list(match)
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or names[1:4]
            raise ValueError(f"match={pattern!r} fits the name of no module; there are {', '.join(near)}")

    def chosen(name: str, module: nn.Module) -> bool:
        parts = name.split(".")
        around = [".".join(parts[: i + 1]) for i in range(len(parts))]
        return any(fnmatchcase(path, pattern) for path in around for pattern in patterns)

    return chosen
