"""``NNConv`` within groups, by the sums over edges that its matrices meet, not by a matrix for every edge."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.nn import MLP, NNConv
from torch_geometric.nn.dense.linear import Linear

from mgic_geo.core.hooks import run_pre_hooks
from mgic_geo.core.pointwise import grouped_linear
from mgic_geo.graph.edges.edge_csr import EdgeCSR, edge_csr
from mgic_geo.graph.edges.propagation import edgewise, plain_propagate
from mgic_geo.graph.edges.sums import edge_sum
from mgic_geo.graph.grouped.grouped_map import GroupedMap

__all__ = ["GroupedNN"]

_TARGETS = 1024  # of which the products of features are held at once


def _propagate_network(self: GroupedNN, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    (source, target), edge_attr = features["x"], features["edge_attr"]
    targets = size[1] if size is not None else source.size(0) if target is None else target.size(0)
    if not edgewise(self, edge_index, source, edge_attr) or self.aggr not in ("add", "sum", "mean"):
        return plain_propagate(self, edge_index, size, **features)
    edges = edge_csr(edge_index, source.size(0), targets)
    hidden, weight = self.hidden(edges, edge_attr), self.by_products()
    # An edge that is not there has features and sources of zero.
    hidden = torch.cat([hidden, hidden.new_zeros(1, *hidden.shape[1:])])
    source = torch.cat([source, source.new_zeros(1, source.size(1))])
    outs = []
    for table in edges.tables(_TARGETS):
        ends, width = (
            torch.cat([edges.source, edges.source.new_full((1,), edges.sources)])[table],
            table.size(1),
        )
        own = source.index_select(0, ends.flatten()).view(
            -1, width, self.groups, source.size(1) // self.groups
        )
        seen = hidden.index_select(0, table.flatten()).view(-1, width, *hidden.shape[1:])
        products = seen.permute(0, 2, 3, 1) @ own.transpose(1, 2)  # (targets, groups, hidden, in)
        outs.append(grouped_linear(products.flatten(1), weight, None, self.groups))
    out = torch.cat(outs).index_select(0, edges.place_in_tables(_TARGETS))
    return out / edges.degrees(out) if self.aggr == "mean" else out


class GroupedNN(NNConv):
    r"""``NNConv`` within groups; a network for every group makes its matrices of each edge.

    A message is bilinear in the source and the network's hidden features, so with :math:`h_e` these
    features :math:`\sum_e W(h_e)\, x_e = W\left(\sum_e h_e \otimes x_e\right)`: the products are summed at
    the nodes, and the weights map the sums. No matrix of an edge is made.
    """

    propagate = _propagate_network  # type: ignore[assignment]

    def __init__(
        self, groups: int, in_channels: int, out_channels: int, edge_dim: int, **kwargs: Any
    ) -> None:
        entries = in_channels * (out_channels // groups)
        network = MLP([edge_dim, in_channels, entries], norm=None)
        super().__init__(in_channels, out_channels, network, **kwargs)
        self.groups = groups

    def message(self, x_j: Tensor, edge_attr: Tensor) -> Tensor:
        """(E, in_channels) to (E, out_channels)."""
        read, written = self.in_channels_l // self.groups, self.out_channels // self.groups
        weight = self.nn(edge_attr).view(-1, self.groups, read, written)
        return (x_j.view(-1, self.groups, 1, read) @ weight).flatten(1)

    def hidden(self, edges: EdgeCSR, edge_attr: Tensor) -> Tensor:
        """(E, groups, hidden + 1) what the network's second map reads, and a one for its bias."""
        network = cast(MLP, self.nn)
        first = run_pre_hooks(cast(Linear, network.lins[0]), edge_attr)
        weight = torch.cat([first.weight, cast(Tensor, first.bias).unsqueeze(1)], 1)
        one = edge_attr.new_ones(edge_attr.size(0), 1)
        out = network.act(edge_sum(edges, None, None, torch.cat([edge_attr, one], 1), weight))
        run_pre_hooks(network.lins[1], out)  # here, where there is what it reads
        return torch.cat([out.unflatten(1, (self.groups, -1)), one.expand(-1, self.groups).unsqueeze(2)], 2)

    def by_products(self) -> Tensor:
        """(out_channels, (hidden + 1) · in) the second map's weight as one of the products."""
        last = cast(GroupedMap, cast(MLP, self.nn).lins[1])
        both = torch.cat([last.weight, cast(Tensor, last.bias).unsqueeze(1)], 1)
        read, written = self.in_channels_l // self.groups, self.out_channels // self.groups
        return both.view(self.groups, read, written, -1).permute(0, 2, 3, 1).reshape(self.out_channels, -1)
