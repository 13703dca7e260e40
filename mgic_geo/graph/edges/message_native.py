"""Messages along the edges of any graph by compiled loops: made, summed and made again for the gradient."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from mgic_geo.core.twice import gradients, must_use_torch
from mgic_geo.graph.edges.edge_csr import EdgeCSR
from mgic_geo.native import applies, run

__all__ = ["Kind", "Parts", "fits", "send"]

_MOST = 8
"""Features of an edge that the loops map faster than a matrix product; they know the same number."""


class Kind(IntEnum):
    """What is made of target's t, source's s, edge's features e and a factor f of edge and head."""

    RELU = 0
    """The sum of max(s0 + w0 e, 0)."""
    SOFT = 1
    """The same, weighed with the softmax of ``scale`` times itself over the edges of a target."""
    FILM = 2
    """The sum of max(t0 + t1 s0, 0)."""
    GATE = 3
    """The sum of sigmoid(t0 + s0 + w0 e) (s1 + w1 e)."""
    CRYSTAL = 4
    """The sum of sigmoid(t0 + s0 + w0 e) softplus(t1 + s1 + w1 e)."""
    WEIGHED = 5
    """The sum of f (s0 + w0 e)."""
    LEAKY = 6
    """For every edge and head, the sum over channels of t1 leaky(t0 + s0 + w0 e); t1 is one row for all."""
    DOT = 7
    """For every edge and head, the sum over channels of t0 (s0 + w0 e)."""


class Parts(NamedTuple):
    """What messages are made of; which of these, :class:`Kind` says."""

    t0: Tensor | None = None
    """(targets, C)."""
    t1: Tensor | None = None
    """(targets, C), or (1, C) for scores."""
    s0: Tensor | None = None
    """(sources, C)."""
    s1: Tensor | None = None
    """(sources, C)."""
    attr: Tensor | None = None
    """(E, D) features of the edges; a constant."""
    w0: Tensor | None = None
    """(C, D) their map."""
    w1: Tensor | None = None
    """(C, D) their second map."""
    factor: Tensor | None = None
    """(E, H) of C / H channels each."""


Plain = Callable[[EdgeCSR, Parts], Tensor]


def fits(edges: EdgeCSR, parts: Parts, width: int | None = None) -> bool:
    """Whether :func:`send` works here, and is the fastest way.

    Args:
        edges: The graph.
        parts: Of the messages.
        width: Channels of a head.
    """
    if parts.s0 is None or not applies(*parts) or torch.is_autocast_enabled("cpu"):
        return False
    count, channels = edges.source.numel(), parts.s0.size(1)
    heads = 0 if width is None else channels // max(1, width)
    features = 0 if parts.attr is None else parts.attr.size(-1)
    shapes = {
        "t0": [(edges.targets, channels)],
        "t1": [(edges.targets, channels), (1, channels)],
        "s0": [(edges.sources, channels)],
        "s1": [(edges.sources, channels)],
        "attr": [(count, features)],
        "w0": [(channels, features)],
        "w1": [(channels, features)],
        "factor": [(count, heads)],
    }
    # What has another shape goes to torch's operators, which say what is wrong; the loops would read on.
    return (
        all(x is None or tuple(x.shape) in shapes[name] for name, x in parts._asdict().items())
        and count > 0
        and channels > 0
        and channels % 16 == 0
        and (width is None or (width * heads == channels and (width == 8 or width % 16 == 0)))
        and features <= _MOST
        and (parts.attr is None) == (parts.w0 is None)
        and not (parts.attr is not None and (features == 0 or parts.attr.requires_grad))
    )


def send(
    kind: Kind, edges: EdgeCSR, parts: Parts, plain: Plain, scale: float = 1.0, width: int = 16
) -> Tensor:
    """The messages' sums (targets, C), or the scores (E, C / width). Only where :func:`fits` says so.

    Args:
        kind: What the messages are.
        edges: The graph.
        parts: What they are made of.
        plain: The same from ``(edges, parts)`` in torch's operators, for second derivatives.
        scale: Factor of the softmax, or the slope below zero.
        width: Channels of a head.
    """
    # Here and not within: what is saved must be what has a gradient.
    given = (None if part is None else part.contiguous() for part in parts)
    return _Send.apply(kind, edges, plain, scale, width, *given)  # type: ignore[return-value]


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, kind: Kind, edges: EdgeCSR, plain: Plain, scale: float, width: int, *given: Tensor | None
    ) -> Tensor:
        parts = Parts(*given)
        assert parts.s0 is not None
        shape = edges.targets, parts.s0.size(1)
        result: list[Tensor] = []
        graph = _graph(kind, edges, parts, scale, width)
        if kind in (Kind.LEAKY, Kind.DOT):
            out = parts.s0.new_empty(edges.source.numel(), shape[1] // width)
            run("scores", *graph, out)
        else:
            out = parts.s0.new_empty(shape)
            result = [torch.empty_like(out), torch.empty_like(out)] if kind is Kind.SOFT else []
            run("messages", *graph, out, *(result or (None, None)))
            result = [out, *result] if result else []
        ctx.rest = kind, edges, plain, scale, width
        ctx.save_for_backward(*parts, *result)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        kind, edges, plain, scale, width = ctx.rest
        saved = ctx.saved_tensors  # once: checkpointing computes anew what is asked for
        parts, result = Parts(*saved[:8]), saved[8:]
        if must_use_torch(grad):

            def again(*given: Tensor | None) -> Tensor:
                return plain(edges, Parts(*given))

            return (*[None] * 5, *gradients(again, parts, grad))
        grad = grad.contiguous()
        grad_factor = None
        if kind is Kind.WEIGHED and ctx.needs_input_grad[-1]:
            grad_factor = torch.empty_like(cast(Tensor, parts.factor))
            run("scores", *_graph(Kind.DOT, edges, parts._replace(t0=grad), scale, width), grad_factor)
        if kind in (Kind.LEAKY, Kind.DOT):
            parts = parts._replace(factor=grad)
        tables = [None if x is None else torch.empty_like(x) for x in parts[:4]]
        maps = [None if x is None else x.new_empty(x.size(1), x.size(0)) for x in parts[5:7]]
        graph = _graph(kind, edges, parts, scale, width)
        run("messages_grad", *graph, grad, *(result or [None] * 3), *tables, *maps)
        grad_maps = [None if x is None else x.t() for x in maps]
        return (*[None] * 5, *tables, None, *grad_maps, grad_factor)


def _graph(kind: Kind, edges: EdgeCSR, parts: Parts, scale: float, width: int) -> tuple[Any, ...]:
    """The arguments that all three kernels begin with."""
    t0, t1, s0, s1, attr, w0, w1, factor = parts
    assert s0 is not None
    features = 0 if attr is None else attr.size(1)
    maps = [None if x is None else x.t().contiguous() for x in (w0, w1)]
    sizes = int(kind), edges.targets, s0.size(0), s0.size(1), features, width, scale
    return (*sizes, edges.ptr, edges.source_by_target, edges.edges, t0, t1, s0, s1, attr, *maps, factor)
