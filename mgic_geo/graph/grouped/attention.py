"""Attention layers in groups: scores from the nodes where they can be, and one weighted sum a head.

A score that is linear in an edge's features is their product with a row of the node's own, and a weighted sum
of mapped edge features is the map of a weighted sum; so what has all channels lies at the nodes.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_geometric.nn import GATConv, GATv2Conv, PointTransformerConv, TransformerConv
from torch_geometric.nn.dense.linear import Linear

from mgic_geo.core.hooks import run_pre_hooks
from mgic_geo.graph.edges.edge_csr import EdgeCSR, edge_csr
from mgic_geo.graph.edges.messages import Kind, Parts, scores, weighed
from mgic_geo.graph.edges.propagation import edgewise, plain_propagate, plain_update
from mgic_geo.graph.edges.shares import near, softmax
from mgic_geo.graph.edges.sums import edge_sum, gather_at_edges, spmm, total

__all__ = ["NodewiseGAT", "NodewiseGATv2", "NodewisePointTransformer", "NodewiseTransformer"]


def _weights(layer: Any, edges: EdgeCSR, by_head: Tensor) -> Tensor:
    """Attention weights (E, H) of scores, with dropout."""
    return F.dropout(softmax(edges, by_head), layer.dropout, layer.training)


def _columns(edge_attr: Tensor) -> Tensor:
    return edge_attr.unsqueeze(1) if edge_attr.dim() == 1 else edge_attr


def _weighted_sources(self: Any, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    """The sum of the sources' rows, (sources, H, C), times the attention ``alpha`` (E, H)."""
    (source, target), alpha = features["x"], features["alpha"]
    targets = source.size(0) if target is None else target.size(0)
    targets = targets if size is None else size[1]
    if not edgewise(self, edge_index, source, alpha) or self.aggr not in ("add", "sum"):
        return plain_propagate(self, edge_index, size, **features)
    edges = edge_csr(edge_index, source.size(0), targets)
    return weighed(edges, source.flatten(1), alpha).view(targets, *source.shape[1:])


def _gat_scores(self: GATConv, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    (source, target), edge_attr = features["alpha"], features["edge_attr"]
    if target is None or not edgewise(self, edge_index, source, target, edge_attr):
        return plain_update(self, edge_index, size, **features)
    edges = edge_csr(edge_index, source.size(0), target.size(0))
    by_edge = None
    if edge_attr is not None and self.lin_edge is not None:  # one product with the edge's features a head
        edge_attr = _columns(edge_attr)
        weight = run_pre_hooks(self.lin_edge, edge_attr).weight.unflatten(0, (self.heads, self.out_channels))
        by_edge = (weight * self.att_edge.transpose(0, 1).mT).sum(1)
    else:
        edge_attr = None
    sums = edge_sum(edges, target, source, edge_attr, by_edge)
    return _weights(self, edges, F.leaky_relu(sums, self.negative_slope))


class NodewiseGAT(GATConv):
    """``GATConv``: scores are sums of numbers of the two nodes and the edge."""

    edge_updater = _gat_scores  # type: ignore[assignment]
    propagate = _weighted_sources  # type: ignore[assignment]


def _gatv2_scores(self: GATv2Conv, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    (source, target), edge_attr = features["x"], features["edge_attr"]
    mapped = edge_attr is None or self.lin_edge is not None
    if not (mapped and edgewise(self, edge_index, source, target, edge_attr)):
        return plain_update(self, edge_index, size, **features)
    edges = edge_csr(edge_index, source.size(0), target.size(0))
    weight = None
    if edge_attr is not None:
        edge_attr = _columns(edge_attr)
        weight = run_pre_hooks(cast(Linear, self.lin_edge), edge_attr).weight
    parts = Parts(target.flatten(1), self.att.view(1, -1), source.flatten(1), None, edge_attr, weight)
    return _weights(self, edges, scores(Kind.LEAKY, edges, parts, self.heads, self.negative_slope))


class NodewiseGATv2(GATv2Conv):
    """``GATv2Conv``: what a score maps is put together in one pass."""

    edge_updater = _gatv2_scores  # type: ignore[assignment]
    propagate = _weighted_sources  # type: ignore[assignment]


def _attend(self: TransformerConv, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    query, key, value = (features[name] for name in ("query", "key", "value"))
    edge_attr, heads = features["edge_attr"], self.heads
    mapped = (self.lin_edge is None) == (edge_attr is None)
    if not (mapped and edgewise(self, edge_index, query, key, edge_attr) and self.aggr in ("add", "sum")):
        return plain_propagate(self, edge_index, size, **features)
    edges = edge_csr(edge_index, key.size(0), query.size(0))
    query = query * (1 / math.sqrt(self.out_channels))
    weight = None if self.lin_edge is None else run_pre_hooks(self.lin_edge, edge_attr).weight
    parts = Parts(t0=query.flatten(1), s0=key.flatten(1), attr=edge_attr, w0=weight)
    self._alpha = softmax(edges, scores(Kind.DOT, edges, parts, heads))
    alpha = F.dropout(self._alpha, self.dropout, self.training)
    return weighed(edges, value.flatten(1), alpha, edge_attr, weight).unflatten(1, (heads, -1))


class NodewiseTransformer(TransformerConv):
    """``TransformerConv``: queries read the edges' features through the map's weight, and so do sums."""

    propagate = _attend  # type: ignore[assignment]


def _vector_attention(self: Any, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    (source, _), pos, alpha = features["x"], features["pos"], features["alpha"]
    position = self.pos_nn
    linear = isinstance(position, Linear)
    if not (linear and edgewise(self, edge_index, source, *pos, *alpha)) or self.aggr not in ("add", "sum"):
        return plain_propagate(self, edge_index, size, **features)
    edges = edge_csr(edge_index, source.size(0), pos[1].size(0))
    run_pre_hooks(position, pos[0])
    # With p mapped positions, scores are (a_i + p_i + b) - (a_j + p_j): softmax drops what is the target's.
    at_source = F.linear(pos[0], position.weight)
    at_target = F.linear(pos[1], position.weight, position.bias)
    negative = -(alpha[0] + at_source)
    shift = near(negative)
    if shift is not None:
        share = (negative - shift).exp()
        sums = spmm(edges, torch.cat([share, share * (source - at_source)], 1))
        share, out = sums.chunk(2, 1)
        out = out / share.masked_fill(edges.degree.eq(0).unsqueeze(1), 1)
    else:
        share = softmax(edges, gather_at_edges(edges.transposed, negative))
        out = total(edges, share * gather_at_edges(edges.transposed, source - at_source))
    out = out + at_target * edges.degree.clamp(max=1).unsqueeze(1).to(out.dtype)
    return out + alpha[1][:0].sum()  # the map of the targets' scores has a gradient, of zero


class NodewisePointTransformer(PointTransformerConv):
    """``PointTransformerConv``: a softmax over sources of numbers that are the sources' own."""

    propagate = _vector_attention  # type: ignore[assignment]
