"""Parameters and multiply-adds of a model, per module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import mgic_geo.graph.knn
import mgic_geo.graph.reduce  # noqa: F401  # registers the operators counted below

__all__ = ["Complexity", "complexity"]


@dataclass(frozen=True)
class Complexity:
    """Cost of one forward pass.

    Args:
        parameters: Learned values.
        multiply_adds: Multiply-adds of the whole pass.
        modules: Module path to (parameters, multiply-adds), outermost first.
    """

    parameters: int
    multiply_adds: int
    modules: dict[str, tuple[int, int]]

    def table(self, depth: int = 2) -> str:
        """The modules down to ``depth`` as aligned text."""
        rows = [
            (name or "(whole)", *counts) for name, counts in self.modules.items() if name.count(".") < depth
        ]
        width = max(len(name) for name, *_ in rows)
        lines = [f"{'module':<{width}}  {'parameters':>12}  {'multiply-adds':>15}"]
        lines += [f"{name:<{width}}  {parameters:>12,}  {count:>15,}" for name, parameters, count in rows]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


def complexity(model: nn.Module, *inputs: Any) -> Complexity:
    r"""Count the parameters and the multiply-adds of one forward pass on ``inputs``.

    Counted are matrix products and convolutions; k-NN with :math:`N^2 C` multiply-adds of distances and
    :math:`N^2` comparisons a cloud; neighbour maxima and sums with one operation per edge and channel.
    Normalisation, activation, pooling and the gather–scatter inside PyG's own layers are not.

    Args:
        model: Any module; run in evaluation mode without gradients, then put back.
        *inputs: Example inputs of its ``forward``.

    Returns:
        Totals and a table per module.
    """
    modes = {module: module.training for module in model.modules()}
    counter = FlopCounterMode(display=False, custom_mapping=_FORMULAS)
    try:
        with torch.no_grad(), counter:
            model.eval()(*inputs)
    finally:
        for module, training in modes.items():
            module.training = training
    counts = {name: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}
    root = type(model).__name__

    def multiply_adds(name: str, module: nn.Module) -> int:
        path = f"{root}.{name}" if name else root
        if path in counts or not isinstance(module, nn.ModuleList | nn.ModuleDict):
            return counts.get(path, 0)
        # Never called itself, so the counter knows its children only.
        return sum(multiply_adds(f"{name}.{child}", part) for child, part in module.named_children())

    modules = {
        name: (sum(p.numel() for p in module.parameters()), multiply_adds(name, module))
        for name, module in model.named_modules()
    }
    return Complexity(sum(p.numel() for p in model.parameters()), counts.get("Global", 0), modules)


# Formulas are in FLOPs, two per multiply-add, as the counter's own.


def _knn_flops(x_shape: tuple[int, ...], *_: Any, **__: Any) -> int:
    clouds, points, channels = x_shape
    return 2 * clouds * points**2 * (channels + 1)


def _gather_flops(
    y_shape: tuple[int, ...], rowptr: Any, col_shape: tuple[int, ...], *_: Any, **__: Any
) -> int:
    return 2 * math.prod(col_shape) * y_shape[1]


def _product_flops(a: torch.Tensor, b: torch.Tensor, *_: Any, **__: Any) -> int:
    if a.layout != torch.strided:
        return 0  # a propagation, which is not counted in PyG's own layers either
    return 2 * a.size(0) * a.size(1) * b.size(1)


_product_flops._get_raw = True  # type: ignore[attr-defined]  # the counter hands it tensors, not shapes

_FORMULAS: dict[Any, Any] = {
    torch.ops.aten.mm: _product_flops,
    torch.ops.mgic_geo.knn: _knn_flops,
    torch.ops.mgic_geo.neighbor_max: _gather_flops,
    torch.ops.mgic_geo.neighbor_sum: _gather_flops,
}
