"""``PNAConv`` in groups: every tower's first map reads a concatenation, whose parts are mapped apart."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import PNAConv
from torch_geometric.nn.dense.linear import Linear

from mgic_geo.graph.edge_sums import mix
from mgic_geo.graph.grouped_map import GroupedMap
from mgic_geo.graph.incidence import incidence
from mgic_geo.graph.propagation import edgewise, gather_messages, plain_propagate

__all__ = ["NodewisePNA"]


def _propagate_towers(self: Any, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    (neighbors, centers), edge_attr = features["x"], features["edge_attr"]
    if not edgewise(self, edge_index, neighbors, centers, edge_attr):
        return plain_propagate(self, edge_index, size, **features)
    edges = incidence(edge_index, neighbors.size(0), centers.size(0))
    weight = None
    if edge_attr is not None:  # two linear maps of an edge one after the other make one
        weight, bias = self.edge_weights()
        centers = centers + bias.view(1, self.towers, -1)
    out = mix(edges, centers.flatten(1), neighbors.flatten(1), edge_attr, weight)
    return gather_messages(self, edges, self.after_firsts(out.view(-1, self.towers, self.F_in)))


class NodewisePNA(PNAConv):
    """``PNAConv``: the first map of every tower reads [x_i, x_j, the encoded edge]."""

    propagate = _propagate_towers  # type: ignore[assignment]

    def forward(self, x: Tensor, edge_index: Any, edge_attr: Tensor | None = None) -> Tensor:
        """As ``PNAConv``: (N, in_channels) to (N, out_channels)."""
        firsts = self._firsts()
        centers = torch.stack([first.on_part(x, 0, bias=True) for first in firsts], 1)
        neighbors = torch.stack([first.on_part(x, 1) for first in firsts], 1)
        out = self.propagate(edge_index, x=(neighbors, centers), edge_attr=edge_attr)
        out = torch.cat([x.unsqueeze(1).expand(-1, self.towers, -1), out], -1)
        return self.lin(torch.cat([post(out[:, tower]) for tower, post in enumerate(self.post_nns)], 1))

    def message(self, x_i: Tensor, x_j: Tensor, edge_attr: Tensor | None) -> Tensor:
        """(E, towers, in_channels) twice to the same."""
        out = x_i + x_j
        if edge_attr is not None:
            weight, bias = self.edge_weights()
            out = out + F.linear(edge_attr, weight, bias).view(-1, self.towers, self.F_in)
        return self.after_firsts(out)

    def after_firsts(self, x: Tensor) -> Tensor:
        """The rest of every tower behind its first map, (E, towers, in_channels) to the same."""
        rest = [cast(nn.Sequential, tower)[1:] for tower in self.pre_nns]
        if not len(rest[0]):
            return x
        return torch.stack([tower(x[:, i]) for i, tower in enumerate(rest)], 1)

    def edge_weights(self) -> tuple[Tensor, Tensor]:
        """The maps of an edge's features, the encoder's and then the towers' first, as one."""
        encode: Linear = self.edge_encoder  # type: ignore[assignment]
        weights = [first.on_part(encode.weight.t(), 2) for first in self._firsts()]
        biases = [first.on_part(encode.bias.unsqueeze(0), 2) for first in self._firsts()]
        return torch.cat(weights, 1).t(), torch.cat(biases, 1).squeeze(0)

    def _firsts(self) -> list[GroupedMap]:
        return [cast(GroupedMap, cast(nn.Sequential, tower)[0]) for tower in self.pre_nns]
