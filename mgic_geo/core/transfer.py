"""Restriction and prolongation: the grid transfers between channel levels (paper, section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mgic_geo.core.pointwise import GroupedLinear

__all__ = ["Pointwise", "Prolongation", "Restriction"]

Pointwise = Callable[[int, int, int], nn.Module]
"""``pointwise(in_channels, out_channels, groups)``: a bias-free grouped 1×1 map with a ``weight``."""


class _Transfer(nn.Module):
    r"""A grouped pointwise map that starts as an average within each group.

    The weights start positive with row sums 1, so that features do not vanish on their way down.

    Args:
        in_channels: Width of the level it reads.
        out_channels: Width of the level it writes.
        groups: Number of groups, those of the finer of the two levels.
        pointwise: Factory of the map; the default acts on the last axis.
        init: ``"random"`` draws positive rows and normalises them. ``"average"`` makes all entries of a row
            equal: the exact mean of the group, but then the coarse channels of a group start as copies.
            ``"signed"`` draws rows of either sign whose squares sum to 1 on average: for features of either
            sign, whose averages nearly vanish. Graph layers and linear ones start so.

    Raises:
        ValueError: If ``init`` is none of the three.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        pointwise: Pointwise = GroupedLinear,
        init: str = "random",
    ) -> None:
        super().__init__()
        if init not in ("random", "average", "signed"):
            raise ValueError(f"init must be 'random', 'average' or 'signed', got {init!r}")
        self.init = init
        self.map = pointwise(in_channels, out_channels, groups)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the rows anew: positive, each summing to 1, unless ``init`` is ``"signed"``."""
        rows: Tensor = self.map.weight.flatten(1)  # type: ignore[operator]  # a view of the map's parameter
        if self.init == "signed":
            bound = math.sqrt(3 / rows.size(1))
            rows.uniform_(-bound, bound)
            return
        rows.fill_(1.0) if self.init == "average" else rows.uniform_(0.05, 1.0)
        rows.div_(rows.sum(1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map features of ``in_channels`` to ``out_channels`` at every point or pixel."""
        return self.map(x)


class Restriction(_Transfer):
    """:math:`R_j`: summarises each group of level j in about half as many channels of level j + 1."""


class Prolongation(_Transfer):
    """:math:`P_j`: brings level j + 1 back to level j; the transposed structure of R_j, its own weights."""
