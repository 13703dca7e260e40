"""Propagation without anything of size edges × channels, for layers whose messages are linear in the source.

Such a message is the source's features, times a number per edge, and messages are added up: one product with
a sparse matrix. It reads and writes nodes only, and so does its gradient.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from mgic_geo.graph.edges.edge_csr import edge_csr
from mgic_geo.graph.edges.propagation import plain_edges
from mgic_geo.graph.edges.sums import spmm

__all__ = [
    "fits",
    "gather_linear",
    "linear_form",
    "propagate",
    "propagate_differences",
    "propagate_linear",
    "propagate_scaled",
    "targets_of",
]


def propagate(x: Tensor, edge_index: Tensor, weight: Tensor | None, nodes: int) -> Tensor:
    """Sum the features of the sources over the edges of each target.

    Args:
        x: (num_sources, C) float32 or float64 features, on the CPU.
        edge_index: (2, E), row 0 the sources.
        weight: (E,) a factor for each edge, or None.
        nodes: Number N of targets.

    Returns:
        (N, C), zero for a target without edges.
    """
    if torch.compiler.is_exporting():  # as plain operators, which run where this package is not installed
        rows = x[edge_index[0]] if weight is None else x[edge_index[0]] * weight.unsqueeze(1)
        return x.new_zeros(nodes, x.size(1)).index_add(0, edge_index[1], rows)
    if not torch.compiler.is_compiling():
        return spmm(edge_csr(edge_index, x.size(0), nodes), x, weight)
    weight = x.new_ones(edge_index.size(1)) if weight is None else weight
    return _operator(x, edge_index[0], edge_index[1], weight, nodes)


def _product(x: Tensor, source: Tensor, target: Tensor, weight: Tensor, nodes: int) -> Tensor:
    return spmm(edge_csr(torch.stack([source, target]), x.size(0), nodes), x, weight)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, source, target, weight, _ = inputs
    ctx.save_for_backward(x if ctx.needs_input_grad[3] else None, source, target, weight)
    ctx.sources = x.size(0)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, Tensor | None, None]:
    x, source, target, weight = ctx.saved_tensors
    grad_x = (
        _operator(grad.contiguous(), target, source, weight, ctx.sources) if ctx.needs_input_grad[0] else None
    )
    grad_weight = None if x is None else (grad[target] * x[source]).sum(1)
    return grad_x, None, None, grad_weight, None


_operator = torch.library.custom_op("mgic_geo::propagate", _product, mutates_args=())
_operator.register_autograd(_backward, setup_context=_setup)


@_operator.register_fake
def _(x: Tensor, source: Tensor, target: Tensor, weight: Tensor, nodes: int) -> Tensor:
    return x.new_empty(nodes, x.size(1))


@cache
def linear_form(conv: type[MessagePassing]) -> type[MessagePassing]:
    """A layer class that propagates by :func:`propagate_linear`, or as its entry in the table below says."""
    # PyG generates a class's propagation, unless the class itself has one: inheriting it would not do.
    name = f"Linear{conv.__name__}"
    others = {"LEConv": propagate_differences, "HypergraphConv": propagate_scaled}
    body = {"propagate": others.get(conv.__name__, propagate_linear), "__module__": __name__}
    form = type(name, (conv,), body)
    globals()[name] = form  # where pickle looks for it
    return form


def propagate_linear(self: MessagePassing, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    """The propagation of messages x_j, or x_j times ``edge_weight`` or ``norm``."""
    x, others = features["x"], features.keys() - {"x", "edge_weight", "norm"}
    weight = features.get("edge_weight", features.get("norm"))
    if others or not fits(self, edge_index, x, weight):
        return MessagePassing.propagate(self, edge_index, size=size, **features)
    return gather_linear(self, x, edge_index, weight, targets_of(x, size))


def propagate_differences(self: MessagePassing, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    """The propagation of messages a_j - b_i, times ``edge_weight``."""
    a, b, weight = features["a"], features["b"], features["edge_weight"]
    if not fits(self, edge_index, a, weight):
        return MessagePassing.propagate(self, edge_index, size=size, **features)
    nodes = b.size(0)
    ones = a.new_ones(a.size(0), 1)
    counts = gather_linear(self, ones, edge_index, weight, nodes)
    return gather_linear(self, a, edge_index, weight, nodes) - b * counts


def propagate_scaled(self: MessagePassing, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    """The propagation of messages x_j times a ``norm`` of the target."""
    x, norm = features["x"].flatten(1), features["norm"]
    if features["alpha"] is not None or size is None or not fits(self, edge_index, x, None):
        return MessagePassing.propagate(self, edge_index, size=size, **features)
    return gather_linear(self, x, edge_index, None, size[1]) * norm.view(-1, 1)


def fits(layer: MessagePassing, edge_index: Any, x: Any, weight: Tensor | None) -> bool:
    """Whether the sparse product gives what PyG would: plain edges, rows of features, a sum or a mean."""
    source = x[0] if isinstance(x, (tuple, list)) else x
    return (
        plain_edges(layer, edge_index)
        and layer.aggr in ("add", "sum", "mean")
        and source.dim() == 2
        and source.device.type == "cpu"
        and source.dtype in (torch.float32, torch.float64)
        and (weight is None or (weight.dim() == 1 and weight.dtype == source.dtype))
    )


def targets_of(x: Any, size: Any) -> int:
    """Number of nodes that gather, as PyG tells it from features, one or a pair, and ``size``."""
    if size is not None and size[1] is not None:
        return size[1]
    source, target = x if isinstance(x, (tuple, list)) else (x, x)
    return (source if target is None else target).size(0)


def gather_linear(
    layer: MessagePassing, x: Any, edge_index: Tensor, weight: Tensor | None, nodes: int
) -> Tensor:
    """The aggregated messages of a layer that :func:`fits`: (N, C)."""
    source = x[0] if isinstance(x, (tuple, list)) else x
    out = propagate(source, edge_index, weight, nodes)
    if layer.aggr != "mean":
        return out
    if not torch.compiler.is_compiling():
        return out / edge_csr(edge_index, source.size(0), nodes).degrees(out)
    degree = out.new_zeros(nodes).index_add_(0, edge_index[1], out.new_ones(edge_index.size(1)))
    return out / degree.clamp_(min=1).unsqueeze(1)
