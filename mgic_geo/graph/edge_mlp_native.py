"""Networks of two maps on every edge, and their maximum or sum at the targets, by compiled loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mgic_geo.core.twice import by_operators, gradients
from mgic_geo.graph.incidence import Incidence
from mgic_geo.graph.message_native import Parts
from mgic_geo.graph.message_native import fits as parts_fit
from mgic_geo.native import run

__all__ = ["edge_mlp", "fits"]

_EDGES = 32
"""Edges at once; the loops know the same number."""

Plain = Callable[[Incidence, Parts, Tensor, Tensor | None, bool], Tensor]


def fits(edges: Incidence, parts: Parts, inner: Tensor, groups: int) -> bool:
    """Whether :func:`edge_mlp` works here.

    Args:
        edges: The graph.
        parts: ``t0``, ``s0``, ``attr`` and ``w0`` of the first map.
        inner: (C, hidden / groups) the second map.
        groups: Number of groups.
    """
    return (
        parts_fit(edges, parts._replace(t1=inner))
        and inner.size(0) % (16 * groups) == 0
        and inner.size(1) % 16 == 0
        and parts.s0 is not None
        and parts.s0.size(1) == groups * inner.size(1)
    )


def edge_mlp(
    edges: Incidence,
    parts: Parts,
    inner: Tensor,
    bias: Tensor | None,
    largest: bool,
    groups: int,
    plain: Plain,
) -> Tensor:
    """The maximum or the sum over a target's edges of ``inner max(t0 + s0 + w0 e, 0) + bias``.

    The edges that attain a maximum share its gradient. Only where :func:`fits` says so.

    Args:
        edges: The graph.
        parts: ``t0`` (targets, hidden) or None, ``s0`` (sources, hidden), ``attr`` (E, D) and ``w0``
            (hidden, D) or None.
        inner: (C, hidden / groups) the second map.
        bias: (C,) or None.
        largest: Take the maximum, not the sum.
        groups: Number of groups.
        plain: The same from ``(edges, parts, inner, bias, largest)`` in torch's operators.

    Returns:
        (targets, C), zero for a target without edges.
    """
    given = (None if x is None else x.contiguous() for x in (parts.t0, parts.s0, parts.attr, parts.w0))
    bias = None if bias is None else bias.contiguous()
    return _EdgeMLP.apply(edges, largest, groups, plain, *given, inner.contiguous(), bias)  # type: ignore[return-value]


class _EdgeMLP(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        edges: Incidence,
        largest: bool,
        groups: int,
        plain: Plain,
        t0: Tensor | None,
        s0: Tensor,
        attr: Tensor | None,
        w0: Tensor | None,
        inner: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        ctx.rest = edges, largest, groups, plain
        out = s0.new_empty(edges.targets, inner.size(0))
        count = torch.empty_like(out) if largest else None
        work = s0.new_empty(torch.get_num_threads() * _EDGES * (s0.size(1) + inner.size(0)))
        run("edge_mlp", *_network(edges, largest, groups, t0, s0, attr, w0, inner, bias), out, count, work)
        ctx.save_for_backward(t0, s0, attr, w0, inner, bias, *([out, count] if largest else []))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        edges, largest, groups, plain = ctx.rest
        t0, s0, attr, w0, inner, bias, *result = ctx.saved_tensors
        if by_operators(grad):

            def again(
                t0: Tensor | None, s0: Tensor, w0: Tensor | None, inner: Tensor, bias: Tensor | None
            ) -> Tensor:
                return plain(edges, Parts(t0=t0, s0=s0, attr=attr, w0=w0), inner, bias, largest)

            of_t, of_s, of_w, of_inner, of_bias = gradients(again, (t0, s0, w0, inner, bias), grad)
            return *[None] * 4, of_t, of_s, None, of_w, of_inner, of_bias
        of_t, of_s = (None if x is None else torch.empty_like(x) for x in (t0, s0))
        of_w = None if w0 is None else w0.new_empty(w0.size(1), w0.size(0))
        of_inner = inner.new_empty(groups, inner.size(1), inner.size(0) // groups)
        of_bias = inner.new_empty(inner.size(0))
        work = s0.new_empty(2 * torch.get_num_threads() * _EDGES * (s0.size(1) + inner.size(0)))
        network = _network(edges, largest, groups, t0, s0, attr, w0, inner, bias)
        given = grad.contiguous(), *(result or (None, None)), inner
        run("edge_mlp_grad", *network, *given, of_t, of_s, of_w, of_inner, of_bias, work)
        return (
            *[None] * 4,
            of_t,
            of_s,
            None,
            None if of_w is None else of_w.t(),
            of_inner.transpose(1, 2).flatten(0, 1),
            None if bias is None else of_bias,
        )


def _network(
    edges: Incidence,
    largest: bool,
    groups: int,
    t0: Tensor | None,
    s0: Tensor,
    attr: Tensor | None,
    w0: Tensor | None,
    inner: Tensor,
    bias: Tensor | None,
) -> tuple[Any, ...]:
    """The arguments that both kernels begin with."""
    features = 0 if attr is None else attr.size(1)
    blocks = inner.view(groups, -1, inner.size(1)).transpose(1, 2).contiguous()
    sizes = int(largest), edges.targets, s0.size(0), groups, inner.size(1), blocks.size(2), features
    order = edges.ptr, edges.source_by_target, edges.edges
    return (*sizes, *order, t0, s0, attr, None if w0 is None else w0.t().contiguous(), blocks, bias)
