"""Which layers have their weights read by others: those cannot be replaced by what has other weights.

A layer's source tells it for models that have not run; a run tells it of every path that the run takes.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import textwrap
import types
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch_geometric.nn.dense.linear import Linear as PyGLinear

from mgic_geo.core.observed import has_hooks

__all__ = ["paths_read", "watch_weights"]

_REPLACED = (nn.Conv2d, nn.Linear, PyGLinear)
_WEIGHTS = {"weight", "bias"}
_ALL = {"modules", "named_modules", "children", "named_children", "_modules", "get_submodule"}


@functools.lru_cache(maxsize=1024)
def paths_read(kind: type[nn.Module]) -> frozenset[str]:
    """Paths below a module at or under which its forward reads weights, as the source tells; "" is all of it.

    Looked at is ``forward`` with the methods and the functions of the same package that it mentions. A weight
    that is read of a variable, an element of a loop say, may be that of any module that is not only called.
    """
    package = kind.__module__.partition(".")[0]
    waiting = [*_methods(kind, "forward")]
    seen: set[types.FunctionType] = set()
    read: set[str] = set()
    handed: set[str] = set()
    unknown = False
    while waiting:
        function, me = waiting.pop()
        if function in seen:
            continue
        seen.add(function)
        source = _Source(function, me, kind)
        read |= source.read
        handed |= source.handed
        unknown |= source.unknown
        waiting += [method for name in source.methods for method in _methods(kind, name)]
        waiting += [(f, None) for f in source.functions if f.__module__.partition(".")[0] == package]
    return frozenset(read | handed if unknown else read)


def _methods(kind: type[nn.Module], name: str) -> Iterator[tuple[types.FunctionType, str | None]]:
    """All definitions of a method or property, overridden ones included, with their names for ``self``."""
    for owner in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        stored = vars(owner).get(name)
        found = stored.fget if isinstance(stored, property) else getattr(stored, "__func__", stored)
        found = inspect.unwrap(found) if callable(found) else found
        if isinstance(found, types.FunctionType):
            arguments = found.__code__.co_varnames[: found.__code__.co_argcount]
            yield found, None if isinstance(stored, staticmethod) or not arguments else arguments[0]


class _Source(ast.NodeVisitor):
    """What one function reads, hands on and mentions."""

    def __init__(self, function: types.FunctionType, me: str | None, kind: type[nn.Module]) -> None:
        self.read: set[str] = set()
        self.handed: set[str] = set()
        self.methods: set[str] = set()
        self.functions: list[types.FunctionType] = []
        self.unknown = False
        self.me, self.kind, self.globals = me, kind, function.__globals__
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except (OSError, TypeError, SyntaxError):  # typed at a prompt, or a lambda amid a line
            return
        self.visit(tree)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        if isinstance(called, ast.Name) and called.id in ("super", "isinstance", "hasattr", "len"):
            return
        if isinstance(called, ast.Name) and called.id == "getattr" and len(node.args) > 1:
            name = node.args[1]
            if isinstance(name, ast.Constant) and name.value in _WEIGHTS:
                self._weight_of(node.args[0])
        while isinstance(called, ast.Subscript):  # self.layers[i](x)
            self.visit(called.slice)
            called = called.value
        path = self._path(called)
        if path is None:
            self.visit(called)
        elif path:
            self._mention(path, called=True)
        for part in (*node.args, *node.keywords):
            self.visit(part)

    def visit_Compare(self, node: ast.Compare) -> None:
        for part in (node.left, *node.comparators):
            path = self._path(part)
            if path:  # self.downsample is not None
                self._mention(path, called=True)
            else:
                self.visit(part)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = self._path(node)
        if path:
            self._mention(path, called=False)
        elif node.attr in _WEIGHTS:
            self._weight_of(node.value)
        else:
            found = self.globals.get(node.value.id) if isinstance(node.value, ast.Name) else None
            if isinstance(found, types.ModuleType):
                self._function(getattr(found, node.attr, None))
            self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id == self.me:
            self.handed.add("")
        self._function(self.globals.get(node.id))

    def _function(self, found: Any) -> None:
        found = inspect.unwrap(found) if callable(found) else found
        if isinstance(found, types.FunctionType):
            self.functions.append(found)

    def _mention(self, path: list[str], called: bool) -> None:
        first = path[0]
        self.methods.add(first)
        weight = next((i for i, name in enumerate(path) if name in _WEIGHTS), None)
        if weight is not None:
            self.read |= {".".join(path[:weight])} - {""}  # not its own
        elif first in _ALL:
            self.handed.add("")
        elif not called and not inspect.isroutine(getattr(self.kind, first, None)):
            self.handed.add(".".join(path))

    def _weight_of(self, owner: ast.expr) -> None:
        whole = owner
        while self._path(whole) is None and isinstance(whole, ast.Subscript | ast.Attribute):
            whole = whole.value
        path = self._path(whole)
        if path is None:
            self.unknown = True
            self.visit(owner)
        else:  # self.layers[i].weight
            self.read.add(".".join(path))

    def _path(self, node: ast.expr) -> list[str] | None:
        """Names behind ``self``; None for what does not start there."""
        names: list[str] = []
        while isinstance(node, ast.Attribute):
            names.append(node.attr)
            node = node.value
        return names[::-1] if isinstance(node, ast.Name) and node.id == self.me else None


@contextlib.contextmanager
def watch_weights(model: nn.Module) -> Iterator[set[str]]:
    """Names of the layers whose weights others read while the model, or a copy, runs inside this context."""
    read: set[str] = set()
    kinds: dict[nn.Module, type[nn.Module]] = {}
    watching: dict[type[nn.Module], type[nn.Module]] = {}
    for name, module in model.named_modules():
        kind = type(module)
        if kind in _REPLACED and not has_hooks(module):  # with hooks it stays in any case
            kinds[module] = kind
            if kind not in watching:
                watching[kind] = _watching(kind, read)
            module.__class__ = watching[kind]
            vars(module)["_watched"] = [name, 0]
    try:
        yield read
    finally:
        for module, kind in kinds.items():
            module.__class__ = kind
            del vars(module)["_watched"]


def _watching(kind: type[Any], read: set[str]) -> type[nn.Module]:
    """A subclass whose instances tell when something reads their weights outside their forward."""

    class Watching(kind):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            self._watched[1] += 1
            try:
                return super().forward(*args, **kwargs)
            finally:
                self._watched[1] -= 1

        def __getattr__(self, name: str) -> Any:
            if name in _WEIGHTS and not self._watched[1]:
                read.add(self._watched[0])
            return super().__getattr__(name)

        if hasattr(kind, "__deepcopy__"):  # PyG's Linear makes one of its own class

            def __deepcopy__(self, memo: dict[int, Any]) -> Any:
                self._watched[1] += 1
                new = super().__deepcopy__(memo)
                self._watched[1] -= 1
                vars(new)["_watched"] = [*self._watched]
                new.__class__ = type(self)
                return new

    Watching.__name__ = kind.__name__
    return Watching
