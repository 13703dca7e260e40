"""Forms of layers that map a concatenation at every edge: the nodes' parts are mapped at the nodes instead.

A linear map of :math:`[x_i, x_j, e]` is the sum of three, of which two are computed once a node and then
gathered. The linear maps are those of :mod:`mgic_geo.graph.grouped.grouped_map`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import (
    MLP,
    CGConv,
    EdgeConv,
    GeneralConv,
    MessagePassing,
    PointNetConv,
    PPFConv,
    ResGatedGraphConv,
)
from torch_geometric.nn.conv.ppf_conv import point_pair_features

from mgic_geo.core.hooks import run_pre_hooks
from mgic_geo.core.pointwise import grouped_linear
from mgic_geo.graph.edges import reduce_native
from mgic_geo.graph.edges.edge_csr import EdgeCSR, edge_csr
from mgic_geo.graph.edges.linear_propagation import fits, gather_linear, targets_of
from mgic_geo.graph.edges.messages import Kind, Parts, edge_values, gather
from mgic_geo.graph.edges.propagation import edgewise, gather_messages, plain_propagate
from mgic_geo.graph.edges.reduce_native import Inner
from mgic_geo.graph.edges.scatter import reduce_edges
from mgic_geo.graph.edges.sums import edge_sum, gather_at_edges
from mgic_geo.graph.grouped.grouped_map import GroupedMap

__all__ = [
    "NodewiseCG",
    "NodewiseEdge",
    "NodewiseGeneral",
    "NodewisePPF",
    "NodewisePointNet",
    "NodewiseResGated",
]


def _first(mlp: Any) -> GroupedMap:
    return cast(GroupedMap, cast(MLP, mlp).lins[0])


def _after_first(mlp: Any, x: Tensor) -> Tensor:
    """The rest of a network of two linear maps, behind the first."""
    return cast(MLP, mlp).lins[1](cast(MLP, mlp).act(x))


def _gather_mlp(layer: Any, mlp: Any, edges: EdgeCSR, parts: Parts) -> Tensor:
    """The aggregation of a network's values, of whose first map the parts are."""
    last = run_pre_hooks(cast(GroupedMap, mlp.lins[1]), parts.s0)
    inner, reduce = Inner(last.weight, last.bias, last.groups), "max" if layer.aggr == "max" else "sum"
    known = layer.aggr in ("max", "add", "sum", "mean") and isinstance(mlp.act, nn.ReLU)
    if not known or not reduce_native.fits(edges, parts, inner):
        hidden = edge_sum(edges, parts.t0, parts.s0, parts.attr, parts.w0)
        return gather_messages(layer, edges, _after_first(mlp, hidden))
    (out,) = reduce_native.edge_reduce(edges, parts, inner, (reduce,), edge_values)
    return out / edges.degrees(out) if layer.aggr == "mean" else out


def _propagate_edge(self: EdgeConv, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    neighbor, center = features["x"]
    if not edgewise(self, edge_index, neighbor, center):
        return plain_propagate(self, edge_index, size, **features)
    edges = edge_csr(edge_index, neighbor.size(0), center.size(0))
    return _gather_mlp(self, self.nn, edges, Parts(t0=center, s0=neighbor))


class NodewiseEdge(EdgeConv):
    """``EdgeConv``: W [x_i, x_j - x_i] = (W_a - W_b) x_i + W_b x_j."""

    propagate = _propagate_edge  # type: ignore[assignment]

    def forward(self, x: Any, edge_index: Any) -> Tensor:
        """As ``EdgeConv``: (N, in_channels) to (N, out_channels)."""
        source, target = (x, x) if isinstance(x, Tensor) else x
        first = run_pre_hooks(_first(self.nn), source)
        neighbor, on_target = first.on_part(source, 1), first.on_part(target, 1)
        center = first.on_part(target, 0, bias=True) - on_target
        return self.propagate(edge_index, x=(neighbor, center))

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
        """(E, out_channels) twice to the same."""
        return _after_first(self.nn, x_i + x_j)


def _propagate_points(self: Any, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    source, pos, normal = features["x"][0], features["pos"], features.get("normal", ())
    if not edgewise(self, edge_index, source, *pos, *normal):
        return plain_propagate(self, edge_index, size, **features)
    edges, first = edge_csr(edge_index, source.size(0), pos[1].size(0)), _first(self.local_nn)
    both = [
        (edges.transposed, pos[0]),
        (edges, pos[1]),
        *([(edges.transposed, normal[0]), (edges, normal[1])] if normal else []),
    ]
    ends = [gather_at_edges(side, values) for side, values in both]
    seen = point_pair_features(ends[1], ends[0], ends[3], ends[2]) if normal else ends[0] - ends[1]
    return _gather_mlp(self, self.local_nn, edges, Parts(s0=source, attr=seen, w0=first.shared_weight))


class NodewisePointNet(PointNetConv):
    """``PointNetConv``: W [x_j, p_j - p_i]."""

    propagate = _propagate_points  # type: ignore[assignment]

    def forward(self, x: Any, pos: Any, edge_index: Any) -> Tensor:
        """As ``PointNetConv``: (N, in_channels) to (N, out_channels)."""
        source = x[0] if isinstance(x, tuple) else x
        mapped = run_pre_hooks(_first(self.local_nn), source).on_part(source, 0, bias=True)
        return super().forward((mapped, None), pos, edge_index)

    def message(  # type: ignore[override]
        self, x_j: Tensor, pos_i: Tensor, pos_j: Tensor
    ) -> Tensor:
        """(E, out_channels) and (E, 3) twice to (E, out_channels)."""
        return _after_first(self.local_nn, x_j + _first(self.local_nn).on_shared(pos_j - pos_i))


class NodewisePPF(PPFConv):
    """``PPFConv``: W [x_j, the features of a pair of points]."""

    propagate = _propagate_points  # type: ignore[assignment]

    def forward(self, x: Any, pos: Any, normal: Any, edge_index: Any) -> Tensor:
        """As ``PPFConv``: (N, in_channels) to (N, out_channels)."""
        source = x[0] if isinstance(x, tuple) else x
        mapped = run_pre_hooks(_first(self.local_nn), source).on_part(source, 0, bias=True)
        return super().forward((mapped, None), pos, normal, edge_index)

    def message(  # type: ignore[override]
        self, x_j: Tensor, pos_i: Tensor, pos_j: Tensor, normal_i: Tensor, normal_j: Tensor
    ) -> Tensor:
        """(E, out_channels), and positions and normals (E, 3), to (E, out_channels)."""
        pair = point_pair_features(pos_i, pos_j, normal_i, normal_j)
        return _after_first(self.local_nn, x_j + _first(self.local_nn).on_shared(pair))


def _propagate_crystal(self: CGConv, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    (neighbors, centers), edge_attr = features["x"], features["edge_attr"]
    if not edgewise(self, edge_index, *neighbors, *centers, edge_attr):
        both = torch.cat(neighbors, 1), torch.cat(centers, 1)
        return plain_propagate(self, edge_index, size, x=both, edge_attr=edge_attr)
    edges, maps = edge_csr(edge_index, neighbors[0].size(0), centers[0].size(0)), (self.lin_f, self.lin_s)
    w0, w1 = (None if edge_attr is None else cast(GroupedMap, m).shared_weight for m in maps)
    (t0, t1), (s0, s1) = centers, neighbors
    return gather(self, Kind.CRYSTAL, edges, Parts(t0, t1, s0, s1, edge_attr, w0, w1))


class NodewiseCG(CGConv):
    """``CGConv``: two maps of [x_i, x_j, e]."""

    propagate = _propagate_crystal  # type: ignore[assignment]

    def forward(self, x: Any, edge_index: Any, edge_attr: Tensor | None = None) -> Tensor:
        """As ``CGConv``: (N, channels) to the same."""
        source, target = (x, x) if isinstance(x, Tensor) else x
        maps = [run_pre_hooks(cast(GroupedMap, linear), source) for linear in (self.lin_f, self.lin_s)]
        centers = [linear.on_part(target, 0, bias=True) for linear in maps]
        neighbors = [linear.on_part(source, 1) for linear in maps]
        out = self.propagate(edge_index, x=(neighbors, centers), edge_attr=edge_attr)
        return (out if self.bn is None else self.bn(out)) + target

    def message(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor | None) -> Tensor:
        """(E, 2 channels) twice to (E, channels)."""
        both = x_i + x_j
        if edge_attr is not None:
            maps = [cast(GroupedMap, linear) for linear in (self.lin_f, self.lin_s)]
            both = both + torch.cat([linear.on_shared(edge_attr) for linear in maps], 1)
        gate, value = both.chunk(2, 1)
        return gate.sigmoid() * F.softplus(value)


def _propagate_gated(self: Any, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    k, q, v, edge_attr = (features[name] for name in ("k", "q", "v", "edge_attr"))
    if not edgewise(self, edge_index, k, q, v, edge_attr):
        return plain_propagate(self, edge_index, size, **features)
    edges = edge_csr(edge_index, v.size(0), k.size(0))
    of_gate = of_value = None
    if edge_attr is not None:
        of_gate = self.lin_key.shared_weight + self.lin_query.shared_weight
        of_value = self.lin_value.shared_weight
    if isinstance(self.act, nn.Sigmoid):
        return gather(self, Kind.GATE, edges, Parts(k, None, q, v, edge_attr, of_gate, of_value))
    gate = self.act(edge_sum(edges, k, q, edge_attr, of_gate))
    return gather_messages(self, edges, gate * edge_sum(edges, None, v, edge_attr, of_value))


class NodewiseResGated(ResGatedGraphConv):
    """``ResGatedGraphConv``: three maps of a node's features with the edge's."""

    propagate = _propagate_gated  # type: ignore[assignment]

    def forward(self, x: Any, edge_index: Any, edge_attr: Tensor | None = None) -> Tensor:
        """As ``ResGatedGraphConv``: (N, in_channels) to (N, out_channels)."""
        if self.edge_dim is None:
            return super().forward(x, edge_index, edge_attr)
        source, target = (x, x) if isinstance(x, Tensor) else x
        key, query, value = (cast(GroupedMap, m) for m in (self.lin_key, self.lin_query, self.lin_value))
        for linear in (key, query, value):
            run_pre_hooks(linear, source)
        out = self.propagate(
            edge_index,
            k=key.on_part(target, 0, bias=True),
            q=query.on_part(source, 0, bias=True),
            v=value.on_part(source, 0, bias=True),
            edge_attr=edge_attr,
        )
        out = out if self.lin_skip is None else out + self.lin_skip(target)
        return out if self.bias is None else out + self.bias

    def message(self, k_i: Tensor, q_j: Tensor, v_j: Tensor, edge_attr: Tensor | None) -> Tensor:
        """(E, out_channels) thrice to the same."""
        gate = k_i + q_j
        if edge_attr is not None:
            key, query, value = (cast(GroupedMap, m) for m in (self.lin_key, self.lin_query, self.lin_value))
            gate = gate + F.linear(edge_attr, key.shared_weight + query.shared_weight)
            v_j = v_j + value.on_shared(edge_attr)
        return self.act(gate) * v_j  # type: ignore[misc]


def _over_heads(linear: Any, heads: int, x: Tensor) -> Tensor:
    """The mean over heads of what a map gives, by the mean of its weights."""

    def mean(values: Tensor) -> Tensor:
        return values.unflatten(0, (linear.groups, heads, -1)).mean(1).flatten(0, 1)

    if heads == 1:  # whose edges' map is a plain one, without groups
        return linear(x)
    run_pre_hooks(linear, x)
    weight, bias = mean(linear.weight), None if linear.bias is None else mean(linear.bias)
    if linear.shared == linear.in_channels:  # the features of edges
        return F.linear(x, weight, bias)
    return grouped_linear(x, weight, bias, linear.groups)


def _propagate_general(self: GeneralConv, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    x, edge_attr = features["x"], features["edge_attr"]
    if not fits(self, edge_index, x, None):
        return MessagePassing.propagate(self, edge_index, size=size, **features)
    nodes = targets_of(x, size)
    out = gather_linear(self, _over_heads(self.lin_msg, self.heads, x[0]), edge_index, None, nodes)
    per_edge = out.new_zeros(1, 1)
    if not self.directed_msg:
        per_edge = per_edge + _over_heads(self.lin_msg_i, self.heads, x[1])
    if edge_attr is not None:
        mean = reduce_edges(edge_attr, edge_index[1], None, nodes, 0, "mean")
        per_edge = per_edge + _over_heads(self.lin_edge, self.heads, mean)
    degree = out.new_zeros(nodes).index_add_(0, edge_index[1], out.new_ones(edge_index.size(1)))
    times = degree.clamp(max=1) if self.aggr == "mean" else degree
    return (out + times.unsqueeze(1) * per_edge).unsqueeze(1)


class NodewiseGeneral(GeneralConv):
    """``GeneralConv`` without attention: linear, so sources, targets and edges are summed by themselves."""

    propagate = _propagate_general  # type: ignore[assignment]
