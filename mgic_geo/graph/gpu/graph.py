"""A graph, and where u and v of its nodes stand, as the kernels read them."""

from __future__ import annotations

import torch
from torch import Tensor

from mgic_geo.graph.neighbors import Neighbors

__all__ = ["chosen", "graph_tensors", "layout", "parts", "rank_type"]


def graph_tensors(neighbors: Neighbors, gradient: bool) -> tuple[Tensor, ...]:
    """Pointers and sources by target; with a gradient targets by source, too, and the places there.

    Returns:
        ``rowptr``, ``col``, those of the transposed graph, and the ranks of its edges; without a gradient
        the last three are stand-ins that nobody reads.
    """
    rowptr, col = neighbors.rowptr.contiguous(), neighbors.col32  # of which kernels know no strides
    if not gradient:
        return rowptr, col, rowptr, col, col
    transposed = neighbors.transposed
    return rowptr, col, transposed.rowptr, transposed.col32, neighbors.ranks


def rank_type(neighbors: Neighbors) -> torch.dtype:
    """What holds a neighbour's rank: a byte where all nodes are known to have few."""
    return torch.uint8 if neighbors.degree is not None and neighbors.degree <= 256 else torch.int32


def parts(uv: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The u and v (N, groups, C / groups) of rows (N, 2C) that hold them group by group."""
    u, v = uv.view(uv.size(0), groups, 2, -1).unbind(2)
    return u, v


def layout(uv: Tensor, groups: int) -> tuple[int, int, int]:
    """Numbers of a row, channels of a group, and numbers from one group to the next."""
    row = uv.size(1)
    return row, row // (2 * groups), row // groups


def chosen(rowptr: Tensor, col: Tensor, best: Tensor) -> Tensor:
    """(N, C) the source at each rank; where there is no neighbour, any."""
    edge = rowptr[:-1, None] + best
    return col.long()[edge.clamp(max=max(0, col.numel() - 1))]
