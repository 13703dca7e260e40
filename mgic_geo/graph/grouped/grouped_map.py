"""The linear maps of a message-passing layer, given groups."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn.dense.linear import Linear

from mgic_geo.core.pointwise import GroupedLinear, grouped_linear

__all__ = ["GroupedMap", "group_maps"]


class GroupedMap(GroupedLinear):
    r"""Takes the place of a linear map whose features are put together from parts, each of all groups.

    A layer may read a concatenation, :math:`[x_i, x_j, e_{ij}]`, or split what it gets,
    :math:`[\beta, \gamma]`. A part of the node features holds a stretch of every group, while the edge's own
    features, always the last, are read by all groups. Group g gets its stretches of all parts, and the rest.
    Layers that take parts read weights without a call, so they call :func:`run_pre_hooks` first.

    Args:
        in_channels: Width of the input, all parts and the shared rest.
        out_channels: Width of the output, all parts.
        groups: Number of groups.
        bias: Add a learned bias.
        in_parts: Number of equal parts of the input that hold all groups.
        out_parts: Number of equal parts of the output.
        shared: How many of the last input channels all groups read.

    Shapes:
        - weight: (out_channels, one group's channels + shared), the rows of group 0 first: what the small
          layers' weights make when joined;
        - input: (..., in_channels); output: (..., out_channels).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int,
        bias: bool = False,
        in_parts: int = 1,
        out_parts: int = 1,
        shared: int = 0,
    ) -> None:
        self.in_parts, self.out_parts, self.shared = in_parts, out_parts, shared
        super().__init__(in_channels + (groups - 1) * shared, out_channels, groups, bias)
        self.in_channels = in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_channels) to (..., out_channels)."""
        own, weight = x, self.weight
        if self.shared:
            own = own[..., : self.in_channels - self.shared]
            weight = weight[:, : weight.size(1) - self.shared]
        if self.in_parts > 1:
            own = own.unflatten(-1, (self.in_parts, self.groups, -1)).transpose(-3, -2).flatten(-3)
        if own.size(-1):
            out = grouped_linear(own, weight, self.bias, self.groups)
            out = out + self.on_shared(x[..., self.in_channels - self.shared :]) if self.shared else out
        else:
            out = F.linear(x, self.shared_weight, self.bias)
        if self.out_parts > 1:
            out = out.unflatten(-1, (self.groups, self.out_parts, -1)).transpose(-3, -2).flatten(-3)
        return out

    def on_part(self, x: Tensor, part: int, bias: bool = False) -> Tensor:
        """What one part of the input, (..., all groups' channels), adds to the output."""
        width = (self.weight.size(1) - self.shared) // self.in_parts
        weight = self.weight[:, part * width : (part + 1) * width]
        return grouped_linear(x, weight, self.bias if bias else None, self.groups)

    def outputs(self, x: Tensor) -> list[Tensor]:
        """The parts of the output, each (..., all groups' channels), of an input of one part and no rest."""

        def parts(values: Tensor) -> list[Tensor]:
            by_part = values.unflatten(0, (self.groups, self.out_parts, -1)).unbind(1)
            return [own.flatten(0, 1) for own in by_part]

        biases = [None] * self.out_parts if self.bias is None else parts(self.bias)
        pairs = zip(parts(self.weight), biases, strict=True)
        return [grouped_linear(x, weight, bias, self.groups) for weight, bias in pairs]

    @property
    def shared_weight(self) -> Tensor:
        """(out_channels, shared) the weight of what all groups read."""
        return self.weight[:, self.weight.size(1) - self.shared :]

    def on_shared(self, x: Tensor) -> Tensor:
        """What (..., shared) features that all groups read add to the output, without the bias."""
        return F.linear(x, self.shared_weight)

    def extra_repr(self) -> str:
        """Widths, groups and what departs from the defaults."""
        text = super().extra_repr()
        for name, usual in (("in_parts", 1), ("out_parts", 1), ("shared", 0)):
            text += f", {name}={getattr(self, name)}" if getattr(self, name) != usual else ""
        return text


def group_maps(layer: nn.Module, small: nn.Module, groups: int, parts: Mapping[str, tuple[int, int]]) -> bool:
    """Put a :class:`GroupedMap` in the place of every linear map of ``layer`` that reads node features.

    Args:
        layer: The layer at full width; changed in place. Maps shared under two names stay shared.
        small: The layer at one group's width: how the widths of a map differ tells what it reads.
        groups: Number of groups.
        parts: For patterns of names, how many parts the input and the output of a map are made of.

    Returns:
        Whether all maps could be grouped: False if one maps all groups' channels to something of one size,
        or the small layer has none in its place.
    """
    made: dict[nn.Module, GroupedMap] = {}
    others = dict(small.named_modules(remove_duplicate=False))
    for name, module in list(layer.named_modules(remove_duplicate=False)):
        if not isinstance(module, (Linear, nn.Linear)):
            continue
        if name not in others:
            return False
        module, other = cast(nn.Linear, module), cast(nn.Linear, others[name])
        (rows, width), (small_rows, small_width) = module.weight.shape, other.weight.shape
        in_parts, out_parts = next((n for key, n in parts.items() if fnmatch(name, key)), (1, 1))
        if width == small_width and out_parts == 1:
            continue  # it reads edges or positions alone: its rows are already one group after another
        shared, left = divmod(groups * small_width - width, groups - 1)
        if rows != groups * small_rows or left or shared < 0 or (small_width - shared) % in_parts:
            return False
        if module not in made:
            made[module] = GroupedMap(
                width, rows, groups, module.bias is not None, in_parts, out_parts, shared
            )
        layer.set_submodule(name, made[module])
    return True
