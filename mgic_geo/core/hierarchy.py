"""The channel grids of one block: how wide each level is and how it is grouped."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ChannelHierarchy"]


@dataclass(frozen=True)
class ChannelHierarchy:
    r"""Widths and groups of every level, plain integers (paper, section 4.1).

    Level 0 is the finest with ``channels`` channels; every level below it halves the width, until it
    is at most ``coarse_size``. A level that is not the coarsest has groups of at most ``group_size``
    channels, shared by its block, its restriction and its prolongation. The coarsest is not grouped.

    Where halving or grouping does not divide, level :math:`j` takes the size of its groups as

    1. the largest *even* divisor of :math:`c_j` that is at most ``group_size``: all groups halve exactly;
    2. else the largest odd divisor in [3, ``group_size``]: a group of :math:`g` keeps :math:`(g + 1) / 2`;
    3. else the smallest divisor above ``group_size`` (one channel alone cannot be halved).

    So no channel is dropped and groups nest in whole channels on both sides of every transfer. A prime
    width above ``group_size`` has only itself as a group: that level is dense, which ``repr`` shows.

    Args:
        channels: Width of the finest level, at least 1.
        group_size: Largest number of channels in a group, :math:`s_g` in the paper, at least 1.
        coarse_size: Coarsening stops at the first width not above it, :math:`s_c`, at least 1.
        min_levels: Coarsen at least this many times, even below ``coarse_size``.

    Raises:
        TypeError: If a value is no integer.
        ValueError: If a value is too small, or ``min_levels`` asks to halve a single channel.

    Example:
        >>> ChannelHierarchy(64, group_size=16, coarse_size=16)
        ChannelHierarchy(64 in 4 groups -> 32 in 2 groups -> 16 dense)
    """

    channels: int
    group_size: int
    coarse_size: int
    min_levels: int = 0
    widths: tuple[int, ...] = field(init=False)
    groups: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        for name, least in (("channels", 1), ("group_size", 1), ("coarse_size", 1), ("min_levels", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        widths, groups = [self.channels], []
        while widths[-1] > self.coarse_size or len(groups) < self.min_levels:
            width = widths[-1]
            if width == 1:
                raise ValueError(
                    f"min_levels={self.min_levels} cannot be reached: {self.channels} channels are down to 1 "
                    f"after {len(groups)} coarsenings; ask for min_levels <= {len(groups)}"
                )
            size = _group_size(width, self.group_size)
            groups.append(width // size)
            widths.append(width // size * ((size + 1) // 2))
        object.__setattr__(self, "widths", tuple(widths))
        object.__setattr__(self, "groups", (*groups, 1))

    @property
    def coarsenings(self) -> int:
        """How often the width is halved; the hierarchy has one level more."""
        return len(self.widths) - 1

    def __repr__(self) -> str:
        fine = [
            f"{width} dense" if groups == 1 else f"{width} in {groups} groups"
            for width, groups in zip(self.widths[:-1], self.groups[:-1], strict=True)
        ]
        return f"{type(self).__name__}({' -> '.join([*fine, f'{self.widths[-1]} dense'])})"


def _group_size(width: int, largest: int) -> int:
    """Channels in a group of a level ``width`` >= 2 wide; the rule stands in the class's docstring."""
    divisors = [size for size in range(2, width + 1) if width % size == 0]
    allowed = [size for size in divisors if size <= largest]
    if not allowed:
        return divisors[0]
    return max([size for size in allowed if size % 2 == 0] or allowed)
