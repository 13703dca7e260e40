"""Sums over the edges of a graph, and what nodes send along them, by one primitive: torch's embedding bag.

A bag gathers rows of a table, weighs them and adds them up in one pass. Each function's gradient is again one
of these functions, on the graph or on the transposed graph, so that any order of derivative works.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mgic_geo.graph.edges.edge_csr import EdgeCSR

__all__ = ["dot", "edge_sum", "gather_at_edges", "segment_sum", "spmm", "total"]

_CHUNK = 1024  # edges whose channels stay in the cache
_FEW = 8  # edge features that a bag weighs faster than a matrix product


def total(edges: EdgeCSR, values: Tensor) -> Tensor:
    """Sum the values of the edges, (E, ...), at their targets: (targets, ...)."""
    return _Total.apply(values, edges)  # type: ignore[return-value]


def gather_at_edges(edges: EdgeCSR, x: Tensor) -> Tensor:
    """The values of the targets, (targets, ...), at their edges: (E, ...)."""
    return _GatherAtEdges.apply(x, edges)  # type: ignore[return-value]


def spmm(edges: EdgeCSR, x: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum the features of the sources at their targets.

    Args:
        edges: The graph.
        x: (sources, C).
        weight: (E,) a factor for each edge, (E, H) one for each head's C / H channels, or None.

    Returns:
        (targets, C), zero for a target without edges.
    """
    return _SpMM.apply(x, weight, edges)  # type: ignore[return-value]


def dot(edges: EdgeCSR, a: Tensor, b: Tensor, heads: int) -> Tensor:
    """Products of the targets' features (targets, C) with the sources' (sources, C), by head: (E, heads)."""
    return _Dot.apply(a, b, edges, heads)  # type: ignore[return-value]


def edge_sum(
    edges: EdgeCSR,
    target: Tensor | None = None,
    source: Tensor | None = None,
    attribute: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """What target, source and the edge itself add to each other: (E, C).

    Args:
        edges: The graph.
        target: (targets, C) or None.
        source: (sources, C) or None.
        attribute: (E, D) features of the edges, or None.
        weight: (C, D) that maps them.
    """
    if attribute is None or attribute.size(1) <= _FEW:
        return _EdgeSum.apply(target, source, attribute, weight, edges)  # type: ignore[return-value]
    assert weight is not None
    if target is None and source is None:
        return attribute @ weight.t()
    return torch.addmm(_EdgeSum.apply(target, source, None, None, edges), attribute, weight.t())  # type: ignore[arg-type]


def segment_sum(table: Tensor, rows: Tensor, ptr: Tensor, weight: Tensor | None = None) -> Tensor:
    """Rows of a table, weighed and added up between pointers."""
    if not (rows.numel() and table.numel()):
        return table.new_zeros(ptr.numel() - 1, table.size(1))
    table = table.detach().contiguous()  # which takes the way without what only a gradient needs
    weight = None if weight is None else weight.detach()
    return torch.embedding_bag(table, rows, ptr, False, 0, False, weight, True)[0]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, edges: EdgeCSR) -> Tensor:  # type: ignore[override]
        ctx.edges = edges
        out = segment_sum(values.flatten(1), edges.edges, edges.ptr)
        return out.view(-1, *values.shape[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gather_at_edges(ctx.edges, grad), None


class _GatherAtEdges(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, edges: EdgeCSR) -> Tensor:  # type: ignore[override]
        ctx.edges = edges
        rows = x.flatten(1).index_select(0, edges.target)  # of more axes it copies element by element
        return rows.view(-1, *x.shape[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return total(ctx.edges, grad), None


class _SpMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, edges: EdgeCSR) -> Tensor:  # type: ignore[override]
        ctx.edges = edges
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        if weight is None:
            return segment_sum(x, edges.source_by_target, edges.ptr)
        if weight.dim() == 1:
            return segment_sum(x, edges.source_by_target, edges.ptr, edges.by_target(weight))
        source, place, ptr = edges.expand_heads(weight.size(1))
        heads, width = weight.size(1), x.size(1)
        table = x.reshape(x.size(0) * heads, width // heads)
        return segment_sum(table, source, ptr, weight.flatten().index_select(0, place)).view(
            edges.targets, width
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        grad_x = spmm(ctx.edges.transposed, grad, weight) if ctx.needs_input_grad[0] else None
        if x is None:
            return grad_x, None, None
        heads = weight.size(1) if weight.dim() == 2 else 1
        return grad_x, dot(ctx.edges, grad, x, heads).view_as(weight), None


class _Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, edges: EdgeCSR, heads: int) -> Tensor:  # type: ignore[override]
        ctx.edges = edges
        ctx.save_for_backward(a, b)
        width = a.size(1) // heads
        ones, out = a.new_ones(width, 1), a.new_empty(edges.target.size(0), heads)
        chunks = zip(*(index.split(_CHUNK) for index in (edges.target, edges.source, out)), strict=True)
        for target, source, part in chunks:
            products = a.index_select(0, target).mul_(b.index_select(0, source)).view(-1, width)
            torch.mm(products, ones, out=part.view(-1, 1))  # faster than a sum over a short axis
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        a, b = ctx.saved_tensors
        grad_a = spmm(ctx.edges, b, grad) if ctx.needs_input_grad[0] else None
        grad_b = spmm(ctx.edges.transposed, a, grad) if ctx.needs_input_grad[1] else None
        return grad_a, grad_b, None, None


class _EdgeSum(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        target: Tensor | None,
        source: Tensor | None,
        attribute: Tensor | None,
        weight: Tensor | None,
        edges: EdgeCSR,
    ) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(attribute, weight)
        own = [part for part in (target, source) if part is not None]
        if attribute is None and len(own) == 1:  # a copy of rows
            return own[0].index_select(0, edges.source if target is None else edges.target)
        table = torch.cat(own if weight is None else [*own, weight.t()])
        sizes = (*(0 if part is None else part.size(0) for part in (target, source)), len(table))
        rows, ptr = edges.bag_layout((sizes[0], sizes[1], sizes[2] - sizes[0] - sizes[1]))
        if attribute is None:
            return segment_sum(table, rows, ptr)
        factors = torch.cat([attribute.new_ones(attribute.size(0), len(own)), attribute], 1)
        return segment_sum(table, rows, ptr, factors.flatten())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        attribute, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        grad_target = total(ctx.edges, grad) if needs[0] else None
        grad_source = total(ctx.edges.transposed, grad) if needs[1] else None
        grad_attribute = grad @ weight if needs[2] else None
        grad_weight = _outer(attribute, grad) if needs[3] else None
        return grad_target, grad_source, grad_attribute, grad_weight, None


def _outer(attribute: Tensor, grad: Tensor) -> Tensor:
    """(C, D) what edges (E, D) and (E, C) give the map of the edges' features."""
    count, few = attribute.shape
    if torch.is_grad_enabled():
        return (attribute.t() @ grad).t()
    rows = torch.arange(count, device=grad.device).repeat(few)
    ptr = torch.arange(few + 1, device=grad.device) * count
    return segment_sum(grad, rows, ptr, attribute.t().flatten()).t()
