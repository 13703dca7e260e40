"""``PNAConv`` in groups: every tower's first map reads a concatenation, whose parts are mapped apart."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import PNAConv
from torch_geometric.nn.aggr import (
    DegreeScalerAggregation,
    MaxAggregation,
    MeanAggregation,
    MinAggregation,
    MultiAggregation,
    StdAggregation,
    SumAggregation,
    VarAggregation,
)
from torch_geometric.nn.dense.linear import Linear

from mgic_geo.core.hooks import run_pre_hooks
from mgic_geo.core.pointwise import grouped_linear
from mgic_geo.graph.edges import reduce_native
from mgic_geo.graph.edges.edge_csr import EdgeCSR, edge_csr
from mgic_geo.graph.edges.messages import Parts, edge_values
from mgic_geo.graph.edges.propagation import edgewise, gather_messages, plain_propagate
from mgic_geo.graph.grouped.grouped_map import GroupedMap

__all__ = ["NodewisePNA"]


def _propagate_towers(self: Any, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    (neighbors, centers), edge_attr = features["x"], features["edge_attr"]
    if not edgewise(self, edge_index, neighbors, centers, edge_attr):
        return plain_propagate(self, edge_index, size, **features)
    edges = edge_csr(edge_index, neighbors.size(0), centers.size(0))
    values = edge_values(edges, self.parts(neighbors, centers, edge_attr), None)
    return gather_messages(self, edges, self.after_firsts(values.view(-1, self.towers, self.F_in)))


class _Ones(nn.Module):
    """In the place of an aggregation: one at every node."""

    def forward(self, x: Tensor, index: Tensor, ptr: None, dim_size: int, dim: int) -> Tensor:
        return x.new_ones(dim_size, 1)


_REDUCTIONS: dict[type[nn.Module], tuple[str, ...]] = {
    SumAggregation: ("sum",),
    MeanAggregation: ("sum",),
    MaxAggregation: ("max",),
    MinAggregation: ("min",),
    VarAggregation: ("sum", "square"),
    StdAggregation: ("sum", "square"),
}
"""What PyG's aggregations are made of."""


def _aggregate(kind: type[nn.Module], found: dict[str, Tensor], edges: EdgeCSR) -> Tensor:
    """An aggregation of PyG's from reductions (N, C)."""
    if kind in (SumAggregation, MaxAggregation, MinAggregation):
        return found[_REDUCTIONS[kind][0]]
    degrees = edges.degrees(found["sum"])
    mean = found["sum"] / degrees
    if kind is MeanAggregation:
        return mean
    var = found["square"] / degrees - mean * mean
    if kind is VarAggregation:
        return var
    out = var.clamp(min=1e-5).sqrt()
    return out.masked_fill(out <= math.sqrt(1e-5), 0.0)


def _mapped(first: GroupedMap, x: Tensor, aggregates: list[Tensor], scales: Tensor) -> Tensor:
    """The map of x and of all aggregates times all scales, in this order, as PyG concatenates them."""
    groups, count = first.groups, scales.size(1)
    weights = run_pre_hooks(first, x).weight.unflatten(0, (groups, -1)).unflatten(2, (first.in_parts, -1))
    sums = []
    for i, aggregate in enumerate(aggregates):
        own = weights[:, :, 1 + i :: len(aggregates)].transpose(1, 2)  # (groups, scales, rows, in)
        sums.append(grouped_linear(aggregate, own.flatten(0, 2), None, groups))
    by_scale = torch.stack(sums).sum(0).unflatten(1, (groups, count, -1))
    return first.on_part(x, 0, bias=True) + (by_scale * scales[:, None, :, None]).sum(2).flatten(1)


class NodewisePNA(PNAConv):
    """``PNAConv``: the first map of every tower reads [x_i, x_j, the encoded edge]."""

    propagate = _propagate_towers  # type: ignore[assignment]

    def forward(self, x: Tensor, edge_index: Any, edge_attr: Tensor | None = None) -> Tensor:
        """As ``PNAConv``: (N, in_channels) to (N, out_channels)."""
        firsts = [run_pre_hooks(first, x) for first in self._firsts()]
        centers = torch.stack([first.on_part(x, 0, bias=True) for first in firsts], 1)
        neighbors = torch.stack([first.on_part(x, 1) for first in firsts], 1)
        if edgewise(self, edge_index, neighbors, centers, edge_attr) and self._reduces():
            edges = edge_csr(edge_index, x.size(0), x.size(0))
            parts = self.parts(neighbors, centers, edge_attr)
            if reduce_native.fits(edges, parts):
                return self.lin(self._from_reductions(x, edges, parts))
        out = self.propagate(edge_index, x=(neighbors, centers), edge_attr=edge_attr)
        out = torch.cat([x.unsqueeze(1).expand(-1, self.towers, -1), out], -1)
        return self.lin(torch.cat([post(out[:, tower]) for tower, post in enumerate(self.post_nns)], 1))

    def parts(self, neighbors: Tensor, centers: Tensor, edge_attr: Tensor | None) -> Parts:
        """Of what the first maps give: the nodes' parts (N, towers, in_channels) and the edges'."""
        weight = None
        if edge_attr is not None:  # two linear maps of an edge one after the other make one
            weight, bias = self.edge_weights(edge_attr)
            centers = centers + bias.view(1, self.towers, -1)
        return Parts(t0=centers.flatten(1), s0=neighbors.flatten(1), attr=edge_attr, w0=weight)

    def _reduces(self) -> bool:
        """Whether sums, sums of squares, maxima and minima of what the first maps give are enough."""
        one_map = all(len(cast(nn.Sequential, tower)) == 1 for tower in self.pre_nns)
        return one_map and all(
            type(aggr) in _REDUCTIONS and not getattr(aggr, "semi_grad", False) for aggr in self._aggrs()
        )

    def _aggrs(self) -> list[nn.Module]:
        several = cast(DegreeScalerAggregation, self.aggr_module).aggr
        return list(several.aggrs) if isinstance(several, MultiAggregation) else [several]

    def _from_reductions(self, x: Tensor, edges: EdgeCSR, parts: Parts) -> Tensor:
        """What the towers' second maps give, (N, out_channels).

        A scaler is a number of a node, so what is mapped is scaled, and no aggregate is copied for it.
        """
        kinds = [type(aggr) for aggr in self._aggrs()]
        wanted = {name for kind in kinds for name in _REDUCTIONS[kind]}
        order = tuple(name for name in ("sum", "square", "max", "min") if name in wanted)
        reductions = reduce_native.edge_reduce(edges, parts, None, order, edge_values)
        found = dict(zip(order, reductions, strict=True))
        aggregates = [_aggregate(kind, found, edges).view(-1, self.towers, self.F_in) for kind in kinds]
        scales = self._scales(x, edges)
        return torch.cat(
            [
                post[1:](_mapped(cast(GroupedMap, post[0]), x, [a[:, tower] for a in aggregates], scales))
                for tower, post in enumerate(cast(list[nn.Sequential], self.post_nns))
            ],
            1,
        )

    def _scales(self, x: Tensor, edges: EdgeCSR) -> Tensor:
        """(N, scalers) what PyG's scalers make of ones."""
        scaling = copy.copy(cast(DegreeScalerAggregation, self.aggr_module))
        scaling._modules = {**scaling._modules, "aggr": _Ones()}
        return scaling(x, edges.target, None, edges.targets, 0)

    def message(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor | None) -> Tensor:
        """(E, towers, in_channels) twice to the same."""
        out = x_i + x_j
        if edge_attr is not None:
            weight, bias = self.edge_weights(edge_attr)
            out = out + F.linear(edge_attr, weight, bias).view(-1, self.towers, self.F_in)
        return self.after_firsts(out)

    def after_firsts(self, x: Tensor) -> Tensor:
        """The rest of every tower behind its first map, (E, towers, in_channels) to the same."""
        rest = [cast(nn.Sequential, tower)[1:] for tower in self.pre_nns]
        if not len(rest[0]):
            return x
        return torch.stack([tower(x[:, i]) for i, tower in enumerate(rest)], 1)

    def edge_weights(self, edge_attr: Tensor) -> tuple[Tensor, Tensor]:
        """The maps of an edge's features, the encoder's and then the towers' first, as one."""
        encode = run_pre_hooks(cast(Linear, self.edge_encoder), edge_attr)
        weights = [first.on_part(encode.weight.t(), 2) for first in self._firsts()]
        biases = [first.on_part(encode.bias.unsqueeze(0), 2) for first in self._firsts()]
        return torch.cat(weights, 1).t(), torch.cat(biases, 1).squeeze(0)

    def _firsts(self) -> list[GroupedMap]:
        return [cast(GroupedMap, cast(nn.Sequential, tower)[0]) for tower in self.pre_nns]
