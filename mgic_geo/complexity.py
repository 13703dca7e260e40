"""Parameters and multiply-adds of a model, per module."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

import mgic_geo.graph  # noqa: F401  # registers the operators that are counted
from mgic_geo.counting import CountingMode
from mgic_geo.text_table import aligned

__all__ = ["Complexity", "complexity"]


@dataclass(frozen=True)
class Complexity:
    """Cost of one forward pass; ``print`` it for :meth:`tree`.

    Args:
        parameters: Learned values, shared ones once.
        multiply_adds: Multiply-adds of the whole pass.
        modules: Module path to (parameters, multiply-adds), outermost first; the model's own path is ``""``.
        classes: Module path to the name of its class.
        kinds: Multiply-adds by what they are for: ``"maps"``, ``"transfers"``, ``"edges"``, ``"k-NN"``,
            ``"attention"``.
    """

    parameters: int
    multiply_adds: int
    modules: dict[str, tuple[int, int]]
    classes: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)

    def tree(self, depth: int = 2) -> str:
        """The modules down to ``depth`` levels below the model, as an aligned text.

        Modules that cost nothing are left out. ``(itself)`` is what a module does, or holds, outside the
        modules it is made of.
        """
        rows = [["module", "class", "parameters", "%", "multiply-adds", "%"]]
        for name, cls, costs in self._rows("", 0, depth):
            row = [name, _short(cls)]
            for cost, whole in zip(costs, (self.parameters, self.multiply_adds), strict=True):
                row += [f"{cost:,}", _percent(cost, whole)]
            rows.append(row)
        text = aligned(rows, left=2)
        parts = [f"{kind} {_percent(n, self.multiply_adds)} %" for kind, n in self.kinds.items() if n]
        return f"{text}\nmultiply-adds: {', '.join(parts)}" if parts else text

    def _rows(self, name: str, level: int, depth: int) -> Iterator[tuple[str, str, tuple[int, int]]]:
        label = "  " * level + name.rpartition(".")[2] if name else "(whole)"
        yield label, self.classes.get(name, ""), self.modules[name]
        children = [path for path in self.modules if path and path.rpartition(".")[0] == name]
        shown = [path for path in children if any(self.modules[path])]
        if level == depth or not shown:
            return
        own = [
            max(0, whole - sum(self.modules[path][i] for path in children))
            for i, whole in enumerate(self.modules[name])
        ]
        if any(own):
            yield "  " * (level + 1) + "(itself)", "", (own[0], own[1])
        for path in shown:
            yield from self._rows(path, level + 1, depth)

    def __str__(self) -> str:
        return self.tree()


def complexity(model: nn.Module, *inputs: Any, **named: Any) -> Complexity:
    r"""Count the parameters and the multiply-adds of one forward pass in evaluation mode.

    One multiply-add each:

    - maps: every pair of values that meets in a matrix product or a convolution, transfer maps included;
    - edges: every edge and channel of a sparse product, and of a sum, mean or maximum over neighbours or by
      index, softmax over edges and PyG's global pooling included;
    - k-NN: :math:`N^2 (C + 1)` a cloud of N points, the distances and their comparison, whatever the backend
      really visits; :func:`torch.cdist` likewise, without the comparison;
    - attention: scaled dot-product attention, and every product that is summed over an axis at once.

    Nothing: biases, normalisations, activations, sums and products element by element, dense pooling, top-k,
    what has one number an edge and no channel (degrees), and operators of other compiled extensions.

    The pass runs on a copy that shares the parameters, without gradients, and random numbers are put back:
    the model, its statistics, caches and lazy widths stay as they were. (A model that cannot be copied
    runs itself, and is put back into its mode.) With inputs on the meta device the copy is there too: nothing
    is computed, and no memory needed, if the forward never looks at values.

    Args:
        model: Any module.
        *inputs: Example inputs of its ``forward``.
        **named: Further ones, by name.

    Returns:
        Totals, and the figures of every module; ``print`` it for a tree.
    """
    model = getattr(model, "_orig_mod", model)  # of a compiled model, whose kernels nobody can look into
    meta = any(isinstance(x, Tensor) and x.device.type == "meta" for x in tree_leaves((inputs, named)))
    twin = _twin(model, meta)
    modes = {module: module.training for module in twin.modules()}
    devices = {p.device.index for p in twin.parameters() if p.device.type == "cuda"}
    counter = CountingMode()
    try:
        with torch.no_grad(), torch.random.fork_rng(sorted(devices)), counter.watch():
            twin.eval()(*inputs, **named)
    finally:
        for module, training in modes.items():
            module.training = training

    def multiply_adds(module: nn.Module) -> int:
        if module in counter.called:
            return counter.modules[module]
        return sum(multiply_adds(child) for child in module.children())  # a list of modules, say

    modules = {
        name: (sum(p.numel() for p in module.parameters()), multiply_adds(module))
        for name, module in twin.named_modules()
    }
    classes = {name: type(module).__name__ for name, module in twin.named_modules()}
    return Complexity(*modules[""], modules, classes, dict(counter.kinds.most_common()))


def _twin(model: nn.Module, meta: bool) -> nn.Module:
    """A copy with the same parameters; on the meta device, a copy with parameters of the same shapes."""
    memo: dict[int, Any] = {}
    for p in model.parameters():
        if not is_lazy(p):
            memo[id(p)] = nn.Parameter(p.detach().to("meta"), p.requires_grad) if meta else p
    for buffer in model.buffers() if meta else ():
        if not is_lazy(buffer):
            memo[id(buffer)] = buffer.to("meta")
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError):  # tensors amid a graph, locks, files: cannot be copied
        return model


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else ""


def _short(name: str, width: int = 24) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"
