"""Values of edges and their sums, squares, maxima and minima at the targets, by compiled loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mgic_geo.core.twice import gradients, must_use_torch
from mgic_geo.graph.edges.edge_csr import EdgeCSR
from mgic_geo.graph.edges.message_native import Parts
from mgic_geo.graph.edges.message_native import fits as parts_fit
from mgic_geo.graph.edges.shares import edge_max
from mgic_geo.graph.edges.sums import total
from mgic_geo.native import applies, run

__all__ = ["Inner", "edge_reduce", "fits"]

_EDGES = 32
"""Edges at once; the loops know the same number."""


class Inner(NamedTuple):
    """A second map, behind max(·, 0), in groups."""

    weight: Tensor
    """(C, hidden / groups)."""
    bias: Tensor | None
    """(C,)."""
    groups: int


Plain = Callable[[EdgeCSR, Parts, Inner | None], Tensor]


def fits(edges: EdgeCSR, parts: Parts, inner: Inner | None = None) -> bool:
    """Whether :func:`edge_reduce` works here.

    Args:
        edges: The graph.
        parts: ``t0``, ``s0``, ``attr`` and ``w0`` of the values, or of what the second map reads.
        inner: The second map.
    """
    if inner is None:
        return parts_fit(edges, parts)
    return (
        parts_fit(edges, parts)
        and applies(inner.weight, inner.bias)
        and inner.weight.size(0) % (16 * inner.groups) == 0
        and inner.weight.size(1) % 16 == 0
        and parts.s0 is not None
        and parts.s0.size(1) == inner.groups * inner.weight.size(1)
        and (inner.bias is None or inner.bias.numel() == inner.weight.size(0))
    )


def edge_reduce(
    edges: EdgeCSR, parts: Parts, inner: Inner | None, wanted: tuple[str, ...], plain: Plain
) -> tuple[Tensor, ...]:
    """Reductions over each target's edges of t0 + s0 + w0 e, or of the second map of max(t0 + s0 + w0 e, 0).

    The edges that attain a maximum or a minimum share its gradient. Only where :func:`fits` says so.

    Args:
        edges: The graph.
        parts: ``t0`` (targets, K) or None, ``s0`` (sources, K), ``attr`` (E, D) and ``w0`` (K, D) or None.
        inner: The second map, to C channels; None for none, so that C is K.
        wanted: Any of ``"sum"``, ``"square"``, ``"max"`` and ``"min"``, in this order.
        plain: The values of all edges, (E, C), from ``(edges, parts, inner)`` in torch's operators.

    Returns:
        A tensor (targets, C) for each of ``wanted``, zero for a target without edges.
    """
    given = (None if x is None else x.contiguous() for x in (parts.t0, parts.s0, parts.attr, parts.w0))
    weight, bias, groups = inner or (None, None, 1)
    weight, bias = (None if x is None else x.contiguous() for x in (weight, bias))
    return _Reduce.apply(edges, wanted, plain, groups, *given, weight, bias)  # type: ignore[return-value]


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, edges: EdgeCSR, wanted: tuple[str, ...], plain: Plain, groups: int, *given: Tensor | None
    ) -> tuple[Tensor, ...]:
        ctx.rest = edges, wanted, plain, groups
        s0, weight = given[1], given[4]
        assert s0 is not None
        shape = edges.targets, (s0 if weight is None else weight.t()).size(1)
        results = {name: s0.new_empty(shape) for name in wanted}
        results |= {f"{name}_count": s0.new_empty(shape) for name in ("max", "min") if name in wanted}
        ordered = [results.get(name) for name in _RESULTS]
        work = s0.new_empty(torch.get_num_threads() * _EDGES * (s0.size(1) + shape[1]))
        run("edge_reduce", *_network(edges, groups, given), *ordered, work)
        kept = [None if name in ("sum", "square") else results.get(name) for name in _RESULTS]
        ctx.save_for_backward(*given, *kept)
        return tuple(results[name] for name in wanted)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        edges, wanted, plain, groups = ctx.rest
        saved = ctx.saved_tensors  # once: checkpointing computes anew what is asked for
        given, results = saved[:6], saved[6:]
        t0, s0, attr, w0, weight, bias = given
        if any(must_use_torch(grad) for grad in grads):

            def again(*given: Tensor | None) -> Tensor:
                t0, s0, w0, weight, bias = given
                inner = None if weight is None else Inner(weight, bias, groups)
                values = plain(edges, Parts(t0=t0, s0=s0, attr=attr, w0=w0), inner)
                return torch.stack([_reduced(edges, values, name) for name in wanted])

            grad_t, grad_s, grad_w, *grad_inner = gradients(
                again, (t0, s0, w0, weight, bias), torch.stack(grads)
            )
            return *[None] * 4, grad_t, grad_s, None, grad_w, *grad_inner
        upstream = dict(zip(wanted, (grad.contiguous() for grad in grads), strict=True))
        grad_t, grad_s = (None if x is None else torch.empty_like(x) for x in (t0, s0))
        grad_w = None if w0 is None else w0.new_empty(w0.size(1), w0.size(0))
        grad_inner = grad_bias = None
        channels = grads[0].size(1)
        if weight is not None:
            grad_inner = weight.new_empty(groups, weight.size(1), channels // groups)
            grad_bias = None if bias is None else torch.empty_like(bias)
        work = s0.new_empty(2 * torch.get_num_threads() * _EDGES * (s0.size(1) + channels))
        order = [upstream.get(name) for name in ("sum", "square", "max", "min")]
        network = *_network(edges, groups, given), *results
        run("edge_reduce_grad", *network, *order, weight, grad_t, grad_s, grad_w, grad_inner, grad_bias, work)
        return (
            *[None] * 4,
            grad_t,
            grad_s,
            None,
            None if grad_w is None else grad_w.t(),
            None if grad_inner is None else grad_inner.transpose(1, 2).flatten(0, 1),
            grad_bias,
        )


_RESULTS = ("sum", "square", "max", "max_count", "min", "min_count")


def _network(edges: EdgeCSR, groups: int, given: tuple[Tensor | None, ...]) -> tuple[Any, ...]:
    """The arguments that both kernels begin with, but for the results."""
    t0, s0, attr, w0, weight, bias = given
    assert s0 is not None
    features, hidden = 0 if attr is None else attr.size(1), s0.size(1) // groups
    blocks, out = None, hidden
    if weight is not None:
        blocks = weight.view(groups, -1, hidden).transpose(1, 2).contiguous()
        out = blocks.size(2)
    else:  # any vectors of channels can be a thread's
        groups, hidden, out = s0.size(1) // 16, 16, 16
    sizes = edges.targets, s0.size(0), groups, hidden, out, features
    order = edges.ptr, edges.source_by_target, edges.edges
    return (*sizes, *order, t0, s0, attr, None if w0 is None else w0.t().contiguous(), blocks, bias)


def _reduced(edges: EdgeCSR, values: Tensor, name: str) -> Tensor:
    if name in ("sum", "square"):
        return total(edges, values if name == "sum" else values * values)
    return edge_max(edges, values) if name == "max" else -edge_max(edges, -values)
