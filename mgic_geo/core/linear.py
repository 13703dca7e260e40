"""Fully connected layers whose features are coupled by a multigrid cycle."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mgic_geo.core.cycle import MGICBlock
from mgic_geo.core.hierarchy import ChannelHierarchy
from mgic_geo.core.pointwise import GroupedLinear

__all__ = ["LINEAR_GAIN", "MGICLinear", "keep_scale_", "light_groups", "start_levels_"]

LINEAR_GAIN = 1 / math.sqrt(3)
"""Root mean square of what ``nn.Linear`` and ``nn.Conv2d`` give at first, over that of what they read."""


class MGICLinear(nn.Module):
    r"""A fully connected layer at a cost linear in its width: Algorithm 1 with one grouped map a level.

    Stands where :class:`torch.nn.Linear` stands. The cycle runs at the narrower of the two widths, which
    bounds the rank of the map; a grouped pointwise map narrows ahead of it, or widens behind it. Every output
    depends on every input, with the parameters of equation (8), d = 1, plus those of the transfers and of
    the change of width. Without ``norm`` it is a linear map, as the layer it replaces, and what a network has
    behind its layers follows it.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        group_size: Largest number of features in a group, :math:`s_g`.
        coarse_size: Largest width of the coarsest, fully coupled level, :math:`s_c`.
        bias: Add a learned bias.
        min_levels: Coarsen at least this many times.
        norm: ``norm(width)`` builds the normalisation of the corrections, on (N, width); None leaves it out.
        transfer_init: ``"random"``, ``"average"`` or ``"signed"``, see :class:`Restriction`. The default is
            ``"signed"``: inputs of a linear layer may have either sign, and averages of them would vanish.

    Shapes:
        - input: (..., in_features);
        - output: (..., out_features).

    Raises:
        ValueError: On impossible sizes, or an input of another width.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        group_size: int = 32,
        coarse_size: int = 64,
        bias: bool = True,
        *,
        min_levels: int = 0,
        norm: Callable[[int], nn.Module] | None = None,
        transfer_init: str = "signed",
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.hierarchy = ChannelHierarchy(min(in_features, out_features), group_size, coarse_size, min_levels)
        light: nn.Module = nn.Identity()
        if in_features != out_features:
            groups = light_groups(in_features, out_features, group_size)
            light = GroupedLinear(in_features, out_features, groups)
        self.narrow = light if in_features > out_features else nn.Identity()
        self.widen = light if in_features < out_features else nn.Identity()
        self.cycle = MGICBlock(
            self.hierarchy,
            lambda width, groups: GroupedLinear(width, width, groups),
            norm=norm or (lambda width: nn.Identity()),
            transfer_init=transfer_init,
        )
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew: the bias as ``nn.Linear`` would, outputs at the scale of its own."""
        self.cycle.reset_parameters()
        start_levels_(self.cycle, LINEAR_GAIN)
        for light in (self.narrow, self.widen):
            if isinstance(light, GroupedLinear):
                keep_scale_(light.weight)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        x = input  # the name by which torch's own layer may be called
        if isinstance(x, Tensor) and (x.dim() == 0 or x.size(-1) != self.in_features):  # no proxy of torch.fx
            raise ValueError(
                f"expected in_features={self.in_features} in the last dimension, got shape {tuple(x.shape)}"
            )
        rows = self.widen(self.cycle(self.narrow(x.reshape(-1, self.in_features))))
        rows = rows if self.bias is None else rows + self.bias.to(rows.dtype)  # float32 under autocast
        return rows.reshape(x.shape[:-1] + (self.out_features,))  # noqa: RUF005  # a proxy has no items

    def __repr__(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return f"{type(self).__name__}({self.in_features}, {self.out_features}{bias}, {self.hierarchy})"


def light_groups(in_channels: int, out_channels: int, group_size: int) -> int:
    """Groups of a map that changes the width: the fewest that read at most ``group_size`` channels each.

    They divide both widths; where none that small does, as many groups as divide both.
    """
    common = math.gcd(in_channels, out_channels)
    divisors = [groups for groups in range(1, common + 1) if common % groups == 0]
    return next((groups for groups in divisors if in_channels // groups <= group_size), common)


@torch.no_grad()
def keep_scale_(weight: Tensor) -> None:
    """Draw a map's weight (out, fan-in, ...) so that outputs have the mean square of the inputs."""
    bound = math.sqrt(3 / weight[0].numel())
    weight.uniform_(-bound, bound)


@torch.no_grad()
def start_levels_(cycle: MGICBlock, gain: float) -> None:
    """Scale the linear maps of all levels so that each level's outputs have the size of a dense layer's.

    The coarsest level reads features; any other reads features, of mean square 1, say, and a correction
    beside them: of mean square 1 where it is normalised, of 1 + gain² where it is not, as the difference of
    what a level gives and reads. With the dense layer's gain in all levels, outputs would grow with each.

    Args:
        cycle: Levels with a ``weight`` (out, fan-in, ...).
        gain: Root mean square of the dense layer's outputs over that of its inputs.
    """
    normalised = not all(isinstance(norm, nn.Identity) for norm in cycle.norms)
    read = math.sqrt(2 if normalised else 2 + gain**2)
    for level in cycle.blocks:
        weight: Tensor = level.weight  # type: ignore[assignment]
        own = weight.square().mean().sqrt() * math.sqrt(weight[0].numel())
        weight.mul_((gain if level is cycle.blocks[-1] else gain / read) / own.clamp_min(1e-12))
