"""EdgeConv's map of both ends of an edge as one map of nodes, to u and v side by side."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["both_biases", "both_maps", "side_by_side"]


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
