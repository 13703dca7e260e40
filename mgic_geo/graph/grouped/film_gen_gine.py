"""Layers that work on every edge's message channel by channel: few passes, and sums with cheap gradients."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.nn import FiLMConv, GENConv, GINEConv

from mgic_geo.core.hooks import run_pre_hooks
from mgic_geo.graph.edges.edge_csr import EdgeCSR, edge_csr
from mgic_geo.graph.edges.linear_propagation import targets_of
from mgic_geo.graph.edges.messages import Kind, Parts, edge_values, film_values, gather
from mgic_geo.graph.edges.propagation import edgewise, gather_messages, plain_propagate
from mgic_geo.graph.edges.scatter import FixedSoftmax
from mgic_geo.graph.edges.sums import edge_sum
from mgic_geo.graph.grouped.grouped_map import GroupedMap

__all__ = ["LiftedFiLM", "TiledGEN", "TiledGINE"]


def _tiled(edge_attr: Tensor | None, x_j: Tensor) -> Tensor | None:
    """Edge features of one group's width, for every group."""
    return None if edge_attr is None else edge_attr.repeat(1, x_j.size(-1) // edge_attr.size(-1))


def _parts(x: Tensor, edge_attr: Tensor | None, map_: Any) -> Parts:
    """Of messages from a source and an edge's features, which a map reads."""
    if edge_attr is None:
        return Parts(s0=x)
    run_pre_hooks(map_, edge_attr)
    return Parts(s0=x if map_.bias is None else x + map_.bias, attr=edge_attr, w0=map_.weight)


def _values(edges: EdgeCSR, x: Tensor, edge_attr: Tensor | None, map_: Any) -> Tensor:
    """x_j + e of every edge, (E, width), with the edge's features mapped or for every group as they are."""
    if edge_attr is not None and map_ is None:
        return edge_sum(edges, None, x) + cast(Tensor, _tiled(edge_attr, x))
    return edge_values(edges, _parts(x, edge_attr, map_), None)


def _rectified(layer: Any, edges: EdgeCSR, x: Tensor, edge_attr: Tensor | None, map_: Any) -> Tensor:
    """The aggregation of max(x_j + e, 0)."""
    if edge_attr is None or map_ is not None:
        return gather(layer, Kind.RELU, edges, _parts(x, edge_attr, map_))
    return gather_messages(layer, edges, _values(edges, x, edge_attr, map_).relu_())


def _propagate_gen(self: Any, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    x, edge_attr = features["x"], features["edge_attr"]
    if not edgewise(self, edge_index, x[0], edge_attr):
        return plain_propagate(self, edge_index, size, **features)
    edges, map_ = edge_csr(edge_index, x[0].size(0), targets_of(x, size)), getattr(self, "lin_edge", None)
    if isinstance(self.aggr_module, FixedSoftmax):  # shares do not depend on eps
        out = _rectified(self, edges, x[0], edge_attr, map_)
        return out + self.eps * (edges.degree > 0).unsqueeze(1)
    return gather_messages(self, edges, _values(edges, x[0], edge_attr, map_).relu_() + self.eps)


def _propagate_gine(self: Any, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    x, edge_attr = features["x"], features["edge_attr"]
    if edge_attr is None or not edgewise(self, edge_index, x[0], edge_attr):
        return plain_propagate(self, edge_index, size, **features)
    edges = edge_csr(edge_index, x[0].size(0), targets_of(x, size))
    return _rectified(self, edges, x[0], edge_attr, self.lin)


def _propagate_film(self: Any, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    x, beta, gamma = (features[name] for name in ("x", "beta", "gamma"))
    if not edgewise(self, edge_index, x, beta, gamma):
        return plain_propagate(self, edge_index, size, **features)
    edges, parts = edge_csr(edge_index, x.size(0), beta.size(0)), Parts(t0=beta, t1=gamma, s0=x)
    if isinstance(self.act, nn.ReLU):
        return gather(self, Kind.FILM, edges, parts)
    out = film_values(edges, parts)
    return gather_messages(self, edges, out if self.act is None else self.act(out))


class LiftedFiLM(FiLMConv):
    """``FiLMConv`` with its modulation and its gradient in few passes."""

    propagate = _propagate_film  # type: ignore[assignment]

    def forward(self, x: Any, edge_index: Any, edge_type: Tensor | None = None) -> Tensor:
        """As ``FiLMConv``: (N, in_channels) to (N, out_channels)."""
        if self.num_relations > 1:
            return super().forward(x, edge_index, edge_type)
        source, target = (x, x) if isinstance(x, Tensor) else x
        beta, gamma = run_pre_hooks(cast(GroupedMap, self.film_skip), target).outputs(target)
        out = torch.addcmul(beta, gamma, self.lin_skip(target))
        out = out if self.act is None else self.act(out)
        beta, gamma = run_pre_hooks(cast(GroupedMap, self.films[0]), target).outputs(target)
        return out + self.propagate(edge_index, x=self.lins[0](source), beta=beta, gamma=gamma)


class TiledGEN(GENConv):
    """``GENConv`` whose edge features, where no map reads them, go to every group as they are."""

    propagate = _propagate_gen  # type: ignore[assignment]

    def message(self, x_j: Tensor, edge_attr: Tensor | None) -> Tensor:
        """(E, width) to (E, width)."""
        return super().message(x_j, edge_attr if hasattr(self, "lin_edge") else _tiled(edge_attr, x_j))


class TiledGINE(GINEConv):
    """``GINEConv`` whose edge features, where no map reads them, go to every group as they are."""

    propagate = _propagate_gine  # type: ignore[assignment]

    def message(self, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        """(E, width) to (E, width)."""
        tiled = edge_attr if self.lin is not None else _tiled(edge_attr, x_j)
        return super().message(x_j, tiled)  # type: ignore[arg-type]
