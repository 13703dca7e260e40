"""What layers send along edges, and its sum at the targets: one definition of each kind of message.

Where compiled loops serve, nothing of edges × channels is stored; elsewhere, and for second derivatives,
messages are put together by torch's operators.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from mgic_geo.core.pointwise import grouped_linear
from mgic_geo.graph.edges import message_native as native
from mgic_geo.graph.edges.edge_csr import EdgeCSR
from mgic_geo.graph.edges.message_native import Kind, Parts
from mgic_geo.graph.edges.propagation import gather_messages
from mgic_geo.graph.edges.reduce_native import Inner
from mgic_geo.graph.edges.scatter import FixedSoftmax
from mgic_geo.graph.edges.shares import leaky_product, softmax_sum, softplus
from mgic_geo.graph.edges.sums import dot, edge_sum, gather_at_edges, spmm, total

__all__ = ["Kind", "Parts", "edge_values", "film_values", "gather", "scores", "weighed"]


def gather(layer: Any, kind: Kind, edges: EdgeCSR, parts: Parts) -> Tensor:
    """Messages of a kind, aggregated as a layer says: (targets, C).

    Args:
        layer: A message-passing layer; its ``aggr`` counts.
        kind: What the messages are, none of the kinds with heads.
        edges: The graph.
        parts: What they are made of.
    """
    soft = isinstance(layer.aggr_module, FixedSoftmax) and kind is Kind.RELU
    if not (soft or layer.aggr in ("add", "sum", "mean")) or not native.fits(edges, parts):
        return gather_messages(layer, edges, _MESSAGES[kind](edges, parts))
    if soft:
        scale = float(layer.aggr_module.t)
        return native.send(Kind.SOFT, edges, parts, partial(_plain_soft, scale=scale), scale)
    out = native.send(kind, edges, parts, partial(_plain_sum, kind))
    return out / edges.degrees(out) if layer.aggr == "mean" else out


def weighed(
    edges: EdgeCSR, x: Tensor, factor: Tensor, attr: Tensor | None = None, weight: Tensor | None = None
) -> Tensor:
    """The sum of sources, and mapped features of edges, times a factor of edge and head: (targets, C).

    Args:
        edges: The graph.
        x: (sources, C).
        factor: (E, H).
        attr: (E, D) features of the edges, or None.
        weight: (C, D) their map.
    """
    parts, width = Parts(s0=x, attr=attr, w0=weight, factor=factor), x.size(1) // factor.size(1)
    if native.fits(edges, parts, width):
        return native.send(Kind.WEIGHED, edges, parts, _plain_weighed, width=width)
    return _plain_weighed(edges, parts)


def scores(kind: Kind, edges: EdgeCSR, parts: Parts, heads: int, slope: float = 1.0) -> Tensor:
    """A number for each edge and head, of kind ``LEAKY`` or ``DOT``: (E, heads)."""
    width = cast(Tensor, parts.s0).size(1) // heads
    plain = partial(_plain_leaky, slope=slope) if kind is Kind.LEAKY else _plain_dot
    plain = partial(plain, width=width)
    if native.fits(edges, parts, width):
        return native.send(kind, edges, parts, plain, slope, width)
    return plain(edges, parts)


def edge_values(edges: EdgeCSR, parts: Parts, inner: Inner | None) -> Tensor:
    """The values of all edges, (E, C), that :func:`edge_reduce` sums up, in torch's operators."""
    values = edge_sum(edges, parts.t0, parts.s0, parts.attr, parts.w0)
    return values if inner is None else grouped_linear(values.relu(), *inner)


def _relu(edges: EdgeCSR, parts: Parts) -> Tensor:
    return edge_sum(edges, None, parts.s0, parts.attr, parts.w0).relu()


def film_values(edges: EdgeCSR, parts: Parts) -> Tensor:
    """t0 + t1 s0 of all edges, (E, C): FiLM before its activation."""
    beta, gamma, x = (cast(Tensor, part) for part in parts[:3])
    products = gather_at_edges(edges, gamma) * gather_at_edges(edges.transposed, x)
    return products.add_(gather_at_edges(edges, beta))


def _film(edges: EdgeCSR, parts: Parts) -> Tensor:
    return film_values(edges, parts).relu()


def _gate(edges: EdgeCSR, parts: Parts) -> Tensor:
    gate = edge_sum(edges, parts.t0, parts.s0, parts.attr, parts.w0).sigmoid()
    return gate * edge_sum(edges, None, parts.s1, parts.attr, parts.w1)


def _crystal(edges: EdgeCSR, parts: Parts) -> Tensor:
    gate = edge_sum(edges, parts.t0, parts.s0, parts.attr, parts.w0).sigmoid()
    return gate * softplus(edge_sum(edges, parts.t1, parts.s1, parts.attr, parts.w1))


_MESSAGES = {Kind.RELU: _relu, Kind.FILM: _film, Kind.GATE: _gate, Kind.CRYSTAL: _crystal}


def _plain_sum(kind: Kind, edges: EdgeCSR, parts: Parts) -> Tensor:
    return total(edges, _MESSAGES[kind](edges, parts))


def _plain_soft(edges: EdgeCSR, parts: Parts, scale: float) -> Tensor:
    return softmax_sum(edges, _relu(edges, parts), scale)


def _plain_weighed(edges: EdgeCSR, parts: Parts) -> Tensor:
    x, factor = cast(Tensor, parts.s0), cast(Tensor, parts.factor)
    out = spmm(edges, x, factor)
    if parts.attr is None:
        return out
    heads = factor.size(1)  # a weighed sum of maps is the map of a weighed sum
    weight = cast(Tensor, parts.w0).unflatten(0, (heads, -1))
    seen = total(edges, factor.unsqueeze(1) * parts.attr.unsqueeze(2))  # (targets, D, H)
    return out + torch.bmm(seen.permute(2, 0, 1), weight.mT).transpose(0, 1).flatten(1)


def _plain_dot(edges: EdgeCSR, parts: Parts, width: int) -> Tensor:
    query, key = cast(Tensor, parts.t0), cast(Tensor, parts.s0)
    heads = query.size(1) // width
    out = dot(edges, query, key, heads)
    if parts.attr is None:
        return out
    weight = cast(Tensor, parts.w0).unflatten(0, (heads, width))  # (H, C / H, D)
    on_edge = torch.bmm(query.unflatten(1, (heads, width)).transpose(0, 1), weight).permute(1, 2, 0)
    return out + (gather_at_edges(edges, on_edge) * parts.attr.unsqueeze(2)).sum(1)


def _plain_leaky(edges: EdgeCSR, parts: Parts, slope: float, width: int) -> Tensor:
    both = edge_sum(edges, parts.t0, parts.s0, parts.attr, parts.w0)
    return leaky_product(both, cast(Tensor, parts.t1).view(-1, width), slope)
