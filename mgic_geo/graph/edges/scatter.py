"""Reductions of edge features to nodes whose gradients cost no more than they do.

PyG's ``scatter`` spreads its index over all channels, so that the gradient gathers element by element; on
wide features that takes many times as long as the sum itself. Here rows are moved as wholes. Values and
gradients are those of PyG, that of a maximum divided among all edges that attain it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn.aggr import Aggregation, SoftmaxAggregation
from torch_geometric.utils import scatter

from mgic_geo.graph.edges.edge_csr import EdgeCSR, edge_csr
from mgic_geo.graph.edges.shares import edge_max, softmax, softmax_sum
from mgic_geo.graph.edges.sums import total
from mgic_geo.native import followed, in_transform

__all__ = ["FixedSoftmax", "aggregate", "edge_softmax", "reduce_edges", "use_fast_aggregation"]

_PYG = Aggregation()
"""Reduces as PyG does whatever is not reduced here."""


def use_fast_aggregation(layer: nn.Module) -> nn.Module:
    """Let all aggregations within ``layer`` reduce by :func:`reduce_edges`."""
    for module in layer.modules():
        if isinstance(module, Aggregation):
            module.reduce = reduce_edges  # type: ignore[method-assign]
        if type(module) is SoftmaxAggregation and not (module.learn or module.semi_grad):
            module.__class__ = FixedSoftmax
    return layer


def reduce_edges(
    x: Tensor,
    index: Tensor | None = None,
    ptr: Tensor | None = None,
    dim_size: int | None = None,
    dim: int = -2,
    reduce: str = "sum",
) -> Tensor:
    """As ``Aggregation.reduce`` of PyG.

    Args:
        x: (E, ...) features of edges.
        index: (E,) the node of each edge.
        ptr: Other cases than edges along the first axis, told by ``index``, are left to PyG.
        dim_size: Number N of nodes.
        dim: Axis of the edges.
        reduce: ``"sum"``, ``"mean"``, ``"max"`` or ``"min"``; others are left to PyG.

    Returns:
        (N, ...), zero for a node without edges.
    """
    known = reduce in ("sum", "add", "mean", "max", "min") and dim % x.dim() == 0
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
    if not known or ptr is not None or index is None or dim_size is None or in_transform() or tracing:
        return Aggregation.reduce(_PYG, x, index, ptr, dim_size, dim, reduce)
    edges = _edge_csr(x, index, dim_size)
    if edges is not None:
        return aggregate(edges, x.flatten(1), reduce).view(dim_size, *x.shape[1:])
    if reduce == "max":
        return _Maximum.apply(x, index, dim_size)
    if reduce == "min":
        return -_Maximum.apply(-x, index, dim_size)
    out = _sums(x, index, dim_size)
    if reduce != "mean":
        return out
    count = _sums(x.new_ones(x.size(0)), index, dim_size).clamp_(min=1)
    return out / count.view(-1, *[1] * (x.dim() - 1))


def edge_softmax(x: Tensor, index: Tensor, nodes: int) -> Tensor:
    """Softmax over the edges of each node, channel by channel, as PyG's.

    Args:
        x: (E, ...) features of edges.
        index: (E,) the node of each edge.
        nodes: Number of nodes.
    """
    edges = _edge_csr(x, index, nodes)
    if edges is not None:
        return softmax(edges, x.flatten(1)).view_as(x)
    largest = scatter(x.detach(), index, 0, dim_size=nodes, reduce="max")
    out = (x - largest.index_select(0, index)).exp()
    return out / (_sums(out, index, nodes) + 1e-16).index_select(0, index)


def aggregate(edges: EdgeCSR, values: Tensor, reduce: str) -> Tensor:
    """Sum, mean, maximum or minimum of the values (E, C) at each target: (targets, C)."""
    if reduce == "max":
        return edge_max(edges, values)
    if reduce == "min":
        return -edge_max(edges, -values)
    out = total(edges, values)
    return out / edges.degrees(out) if reduce == "mean" else out


def _edge_csr(x: Tensor, index: Tensor, nodes: int) -> EdgeCSR | None:
    """The edges of each node, where sums over them are bags: on the CPU, and not in compiled code."""
    if (
        followed()
        or x.device.type != "cpu"
        or x.dtype not in (torch.float32, torch.float64)
        or x.size(0) != index.numel()
    ):
        return None
    return edge_csr(torch.stack([index, index]), nodes, nodes)


def _sums(x: Tensor, index: Tensor, nodes: int) -> Tensor:
    return x.new_zeros(nodes, *x.shape[1:]).index_add(0, index, x)


class FixedSoftmax(SoftmaxAggregation):
    """PyG's, of a fixed temperature."""

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
    ) -> Tensor:
        if index is None or dim_size is None or dim % x.dim():
            return super().forward(x, index, ptr, dim_size, dim)
        edges = _edge_csr(x, index, dim_size)
        if edges is not None:
            return softmax_sum(edges, x.flatten(1), float(self.t)).view(dim_size, *x.shape[1:])
        share = edge_softmax(x if self.t == 1 else x * self.t, index, dim_size)
        return reduce_edges(x * share, index, None, dim_size, 0)


class _Maximum(torch.autograd.Function):
    """The maximum over the edges of each node, and its gradient in equal shares to those that attain it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, nodes: int) -> Tensor:
        out = scatter(x, index, 0, dim_size=nodes, reduce="max")
        ctx.save_for_backward(x, index, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        x, index, out = ctx.saved_tensors
        attains = (x == out.index_select(0, index)).to(grad.dtype)
        # torch starts from zero, and counts that among the edges where it is the maximum.
        share = grad / (_sums(attains, index, out.size(0)) + (out == 0)).clamp_(min=1)
        return attains * share.index_select(0, index), None, None
