"""Algorithm 1 of the paper: the multigrid-in-channels V-cycle over any family of blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mgic_geo.core.correction import corrected
from mgic_geo.core.hierarchy import ChannelHierarchy
from mgic_geo.core.pointwise import GroupedLinear
from mgic_geo.core.transfer import Pointwise, Prolongation, Restriction

__all__ = ["MGICBlock"]


class MGICBlock(nn.Module):
    r"""Replaces a block that couples all channels by a V-cycle of grouped ones (Algorithm 1).

    On the way down :math:`x^{(j+1)} = R_j x^{(j)}`; the coarsest level is fully coupled; on the way up
    :math:`x^{(j)} \leftarrow x^{(j)} + N_j(P_j(x^{(j+1)} - R_j x^{(j)}))`, then level j's grouped block.
    Every output channel depends on every input channel, at a cost linear in the width (equation 8).

    The defaults fit channels-last features (N, C); images pass their own ``pointwise`` and ``norm``.

    Args:
        hierarchy: Widths and groups of the levels.
        block: ``block(width, groups)`` builds the block of one level; it keeps shape and width, and must not
            overwrite its input, which is read again.
        pointwise: ``pointwise(in_channels, out_channels, groups)`` builds the map of a transfer.
        norm: ``norm(width)`` builds the normalisation N of a prolonged correction.
        transfer_init: ``"random"``, ``"average"`` or ``"signed"``, see :class:`Restriction`.
        correction_scale: What the learned scales of the finest normalisation N start with; by default what
            ``norm`` gives them. At 0 the block is its finest grouped block at first, and full coupling is
            learned. The coarser N keep theirs: through zeros one behind the other hardly a gradient passes.
    """

    def __init__(
        self,
        hierarchy: ChannelHierarchy,
        block: Callable[[int, int], nn.Module],
        pointwise: Pointwise = GroupedLinear,
        norm: Callable[[int], nn.Module] = nn.BatchNorm1d,
        transfer_init: str = "random",
        correction_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.correction_scale = correction_scale
        self.hierarchy = hierarchy
        widths, groups = hierarchy.widths, hierarchy.groups
        steps = list(zip(widths[:-1], widths[1:], groups[:-1], strict=True))
        self.restrictions = nn.ModuleList(Restriction(f, c, g, pointwise, transfer_init) for f, c, g in steps)
        self.prolongations = nn.ModuleList(
            Prolongation(c, f, g, pointwise, transfer_init) for f, c, g in steps
        )
        self.norms = nn.ModuleList(norm(width) for width in widths[:-1])
        self.blocks = nn.ModuleList(block(width, g) for width, g in zip(widths, groups, strict=True))
        self.scale_corrections()

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Run the cycle; what follows ``x`` (a graph, positions, ...) reaches the block of every level."""
        # Going down the levels: restricted[j] = x^(j), with x^(j+1) = R_j x^(j).
        restricted = [x]
        for restrict in self.restrictions:
            restricted.append(restrict(restricted[-1]))

        # The coarsest level: a fully coupled block.
        x = self.blocks[-1](restricted[-1], *args, **kwargs)

        # Going up: only what the coarser levels changed is prolonged and added, then a grouped block.
        for j in reversed(range(self.hierarchy.coarsenings)):
            x = corrected(restricted[j], x, restricted[j + 1], self.prolongations[j], self.norms[j])
            x = self.blocks[j](x, *args, **kwargs)
        return x

    def reset_parameters(self) -> None:
        """Draw all levels and transfers anew."""
        for layers in (self.restrictions, self.prolongations, self.norms, self.blocks):
            for layer in layers:
                if hasattr(layer, "reset_parameters"):
                    layer.reset_parameters()  # type: ignore[operator]
        self.scale_corrections()

    @torch.no_grad()
    def scale_corrections(self) -> None:
        """Start the learned scales of the finest correction anew, after something else has set them."""
        for layer in self.norms[:1]:
            if self.correction_scale is not None and getattr(layer, "weight", None) is not None:
                layer.weight.fill_(self.correction_scale)  # type: ignore[operator, union-attr]

    def extra_repr(self) -> str:
        """The plan of the levels."""
        return repr(self.hierarchy)
