"""The light map that brings a graph layer's input to the width of its hierarchy."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter, is_lazy

from mgic_geo.core import GroupedLinear
from mgic_geo.core.linear import light_groups

__all__ = ["LazyShortcut", "make_shortcut"]


def make_shortcut(in_channels: int, out_channels: int, group_size: int) -> nn.Module:
    """A grouped pointwise map, or nothing where the width stays; :class:`LazyShortcut` for -1 channels.

    Raises:
        ValueError: If ``in_channels`` is neither positive nor -1.
    """
    if in_channels == -1:
        return LazyShortcut(out_channels, group_size)
    if in_channels == out_channels:
        return nn.Identity()
    groups = light_groups(in_channels, out_channels, group_size) if in_channels > 0 else 1
    return GroupedLinear(in_channels, out_channels, groups)


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
            has = f"a weight of shape {tuple(weight.shape)}" if loaded else "no weight, so equal widths"
            raise ValueError(
                f"the first input has {in_channels} channels, but the loaded state is of another width: its "
                f"shortcut to {self.out_channels} channels has {has}; build the layer with the in_channels "
                "of the one that was saved"
            )
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
