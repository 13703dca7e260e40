"""The light map that brings a graph layer's input to the width of its hierarchy."""

from __future__ import annotations

import math
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter, is_lazy

from mgic_geo.core import GroupedLinear

__all__ = ["LazyShortcut", "make_shortcut"]


def make_shortcut(in_channels: int, out_channels: int, group_size: int) -> nn.Module:
    """A grouped pointwise map, or nothing where the width stays; :class:`LazyShortcut` for -1 channels.

    It has the fewest groups that divide both widths and read at most ``group_size`` channels each.

    Raises:
        ValueError: If ``in_channels`` is neither positive nor -1.
    """
    if in_channels == -1:
        return LazyShortcut(out_channels, group_size)
    if in_channels == out_channels:
        return nn.Identity()
    common = math.gcd(in_channels, out_channels)
    divisors = [groups for groups in range(1, common + 1) if common % groups == 0]
    fitting = [groups for groups in divisors if in_channels // groups <= group_size]
    return GroupedLinear(in_channels, out_channels, groups=fitting[0] if fitting else common)


class LazyShortcut(nn.Module):
    """Stands in for a shortcut until the first input tells its width.

    As in PyG's lazy layers the weight exists at once, uninitialised, so that an optimiser may hold it; a
    state saved before the first input says so; and one saved later loads before it.

    Args:
        out_channels: Width of the output.
        group_size: See :func:`make_shortcut`.
    """

    def __init__(self, out_channels: int, group_size: int) -> None:
        super().__init__()
        self.out_channels, self.group_size = out_channels, group_size
        self.weight = UninitializedParameter()
        self.kept_width = False  # a state was loaded that holds no weight: it had nothing to map

    def settle(self, in_channels: int) -> nn.Module:
        """The shortcut from ``in_channels``, with this one's parameter, and its values if some were loaded.

        Raises:
            ValueError: If a state was loaded that is of another width.
        """
        weight, loaded = self.weight, not is_lazy(self.weight)
        shortcut = make_shortcut(in_channels, self.out_channels, self.group_size)
        shape = shortcut.weight.shape if isinstance(shortcut, GroupedLinear) else None
        if (loaded and weight.shape != shape) or (self.kept_width and shape):
            raise ValueError(f"the state that was loaded is not that of in_channels={in_channels}")
        if isinstance(shortcut, GroupedLinear):
            if not loaded:
                weight.materialize(shape)  # type: ignore[arg-type]
            shortcut.weight = cast(nn.Parameter, weight)
            if not loaded:
                shortcut.reset_parameters()
        return shortcut

    def reset_parameters(self) -> None:
        """Nothing yet: the first input draws the weight."""

    def forward(self, x: Tensor) -> Tensor:
        """Never reached: the layer that owns this one settles it first."""
        raise RuntimeError("settle the width first")

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        lazy = is_lazy(self.weight)  # which cannot be detached
        destination[prefix + "weight"] = self.weight if keep_vars or lazy else self.weight.detach()

    def _load_from_state_dict(  # type: ignore[override]
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *args: Any
    ) -> None:
        weight = state_dict.get(prefix + "weight")
        if weight is None:
            self.kept_width = strict  # else it may only be missing
        elif not is_lazy(weight):
            if is_lazy(self.weight):
                self.weight.materialize(weight.shape)
            super()._load_from_state_dict(state_dict, prefix, metadata, strict, *args)
