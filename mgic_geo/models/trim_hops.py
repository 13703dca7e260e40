"""Trimming of neighbour-sampled batches for layers of several levels, each of which passes messages once."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_geometric.utils._trim_to_layer import TrimToLayer

__all__ = ["TrimHops"]


class TrimHops(TrimToLayer):
    """Drops, ahead of each layer, the sampled nodes that can no longer reach the seeds.

    PyG's own drops one hop a layer; a layer of n levels still needs n.

    Args:
        num_hops: How many times each layer passes messages.
    """

    def __init__(self, num_hops: list[int]) -> None:
        super().__init__()
        self.num_hops = tuple(num_hops)

    def forward(
        self,
        layer: int,
        num_sampled_nodes_per_hop: list[int] | None,
        num_sampled_edges_per_hop: list[int] | None,
        x: Tensor,
        edge_index: Any,
        edge_attr: Tensor | None = None,
    ) -> tuple[Tensor, Any, Tensor | None]:
        """Trim what the loader's hop-by-hop order puts last; arguments and results are PyG's."""
        counts = num_sampled_nodes_per_hop, num_sampled_edges_per_hop
        if counts[1] is None:
            return super().forward(layer, *counts, x, edge_index, edge_attr)
        sampled = len(counts[1])
        before = sampled - sum(self.num_hops[layer - 1 :]) if layer else 0
        for hop in range(max(before, 0) + 1, sampled - sum(self.num_hops[layer:]) + 1):
            x, edge_index, edge_attr = super().forward(hop, *counts, x, edge_index, edge_attr)
        return x, edge_index, edge_attr
