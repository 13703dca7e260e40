"""EdgeConv's map of both ends of an edge as one map of nodes, to u and v side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mgic_geo.core import norm_native

__all__ = ["both_biases", "both_maps", "side_by_side", "track"]


def both_maps(weight: Tensor, groups: int) -> Tensor:
    """The weight (2C, C_in / groups) of one grouped map to u and v, group by group, from EdgeConv's."""
    on_center, on_neighbor = weight.chunk(2, dim=1)
    return side_by_side(on_center - on_neighbor, on_neighbor, groups)


def side_by_side(of_u: Tensor, of_v: Tensor, groups: int) -> Tensor:
    """Two weights or biases, (C, ...), as (2C, ...): of each group first the rows of u, then those of v."""
    return torch.stack([part.unflatten(0, (groups, -1)) for part in (of_u, of_v)], 1).flatten(0, 2)


def both_biases(bias: Tensor, groups: int) -> Tensor:
    """(2C,) the bias of that map, which is u's."""
    return side_by_side(bias, torch.zeros_like(bias), groups)


@torch.no_grad()
def track(
    norm: nn.BatchNorm1d, sign: Tensor, mean: Tensor, var: Tensor, weight: Tensor, center: Tensor, edges: int
) -> None:
    """Advance the running statistics by the moments of edges whose points had their common part taken off.

    Args:
        norm: The normalisation over edges.
        sign: (C,) -1 where ``weight`` has its sign turned.
        mean: (C,) of the edges.
        var: (C,) of the edges, biased.
        weight: (2C, C_in / groups) of the map to u and v, as :func:`both_maps` gives it.
        center: (C_in,) the common part.
        edges: Number of edges.
    """
    groups = center.numel() // weight.size(1)
    # It counts for x_i alone: u + v of one and the same point.
    both = weight.unflatten(0, (groups, 2, -1)).sum(1).to(mean.dtype)
    with torch.autocast(mean.device.type, enabled=False):
        common = (both @ center.to(mean.dtype).view(groups, -1, 1)).flatten()
    norm_native.track(norm, sign * (mean + common), var, edges)
