"""The cycle of EdgeConv levels for inference: the last restriction is part of the coarsest level's maps."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mgic_geo.core import GroupedLinear, MGICBlock
from mgic_geo.core.fold import in_place
from mgic_geo.graph.edge_conv_folded import FoldedEdgeConv
from mgic_geo.graph.graph_block import GraphBlock, Levels
from mgic_geo.graph.neighbors import Neighbors

__all__ = ["FoldedCycle", "fold_cycle"]


class FoldedCycle(nn.Module):
    r"""Algorithm 1 with residual levels :math:`x + f_j(x)`, by what each level *changes*.

    Only changes are prolonged, so the coarsest features are needed nowhere but in the coarsest layer, whose
    maps take over the restriction to it: one product of matrices less, and neither residual nor difference.

    Args:
        cycle: The block, its normalisations folded, with at least one coarsening; runs where sources are not
            targets.
        coarsest: The coarsest layer behind the last restriction.

    Shapes:
        - as the block's.
    """

    def __init__(self, cycle: MGICBlock, coarsest: FoldedEdgeConv) -> None:
        super().__init__()
        self.cycle, self.coarsest = cycle, coarsest
        self.acts = nn.ModuleList(in_place(block.act) for block in cycle.blocks)  # type: ignore[arg-type]

    @property
    def restrictions(self) -> nn.ModuleList:
        """Of the block."""
        return self.cycle.restrictions

    def forward(self, x: Tensor, source: Levels | None, edge_index: Neighbors) -> Tensor:
        """(N, C) to the same."""
        if source is not None:
            return self.cycle(x, source, edge_index)
        restricted = [x]
        for restrict in self.cycle.restrictions[:-1]:
            restricted.append(restrict(restricted[-1]))
        change = self.acts[-1](self.coarsest(restricted[-1], edge_index))
        for j in reversed(range(self.cycle.hierarchy.coarsenings)):
            correction = self.cycle.prolongations[j](change)
            x = restricted[j] + correction
            change = self.acts[j](self._layer(j)(x, edge_index))
            if j:
                change += correction
        return x + change

    def _layer(self, j: int) -> Any:
        return self.cycle.blocks[j].conv


def fold_cycle(cycle: MGICBlock) -> FoldedCycle | None:
    """The form of a folded block that runs faster; None where its parts are not what that needs."""
    plain = all(
        type(block) is GraphBlock
        and block.residual
        and type(block.conv) is FoldedEdgeConv
        and type(block.norm) is nn.Identity
        for block in cycle.blocks
    )
    if not plain or not cycle.hierarchy.coarsenings or not all(type(n) is nn.Identity for n in cycle.norms):
        return None
    restriction = cycle.restrictions[-1].get_submodule("map")
    coarsest = cycle.blocks[-1].get_submodule("conv")
    assert isinstance(coarsest, FoldedEdgeConv)
    if type(restriction) is not GroupedLinear or restriction.channel_dim != -1:
        return None
    return FoldedCycle(cycle, coarsest.behind(restriction))
