"""Whether a whole cycle over EdgeConv levels can be one compiled step, and that step as a layer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from mgic_geo.core import GroupedLinear, MGICBlock, norm_native
from mgic_geo.core.observed import observed
from mgic_geo.core.transfer import Prolongation, Restriction
from mgic_geo.graph import edge_native
from mgic_geo.graph.cycle_step import Level, Plan, cycle_step
from mgic_geo.graph.edge_conv import EdgeConv
from mgic_geo.graph.edges.propagation import messages_observed
from mgic_geo.graph.graph_block import GraphBlock
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.native import applies

__all__ = ["compiled_cycle"]

_WIDEST = 128
"""Channels of a group, some rows of which are on the stack of each thread."""


def compiled_cycle(shortcut: nn.Module, cycle: MGICBlock, x: Tensor, neighbors: Neighbors) -> Tensor | None:
    """``cycle(shortcut(x), None, neighbors)`` as one step; None where there is none for it.

    That is in training on a CPU with compiled loops, where all levels are residual EdgeConvs with batch
    normalisation in groups of 16 channels or a multiple, on a k-NN graph.

    Args:
        shortcut: Grouped pointwise map to the width of the cycle, or the identity.
        cycle: The levels.
        x: (N, C_in).
        neighbors: Graph of the N nodes.

    Returns:
        (N, C).
    """
    if not (
        type(cycle) is MGICBlock
        and x.dim() == 2
        and applies(x)
        and not observed(cycle, shortcut)
        and _fits_levels(cycle, x, neighbors)
        and _fits_transfers(shortcut, cycle, x)
    ):
        return None
    blocks: list[Any] = list(cycle.blocks)
    parts: list[Any] = [cycle.restrictions, cycle.prolongations, cycle.norms]
    steps: list[Any] = [
        (down.map.weight, up.map.weight, norm.weight, norm.bias)
        for down, up, norm in zip(*parts, strict=True)
    ]
    levels = [
        Level(block.conv.lin.weight, block.norm.weight, block.norm.bias, step)
        for block, step in zip(blocks, [*steps, ()], strict=True)
    ]
    ahead = shortcut if isinstance(shortcut, GroupedLinear) else None
    plan = Plan(
        neighbors.clouds,
        x.size(0) // neighbors.clouds,
        int(neighbors.degree or 0),
        cycle.hierarchy.widths,
        cycle.hierarchy.groups,
        tuple(norm_native.slope_of(block.act) or 0.0 for block in blocks),
        tuple(block.norm.eps for block in blocks),
        tuple(norm.eps for norm in cycle.norms),  # type: ignore[misc]
        0 if ahead is None else ahead.groups,
    )
    out, values = cycle_step(plan, x, neighbors.col32, None if ahead is None else ahead.weight, levels)
    seen, seen_by_corrections = plan.moments(values)
    for j in reversed(range(len(blocks))):  # in the order of the cycle, as one normalisation may serve twice
        if j < len(steps):
            norm_native.track(cycle.norms[j], *seen_by_corrections[j], x.size(0))
        norm_native.track(blocks[j].norm, *seen[j], x.size(0))
    return out


def _fits_levels(cycle: MGICBlock, x: Tensor, neighbors: Neighbors) -> bool:
    plan = cycle.hierarchy
    if not norm_native.large(x.size(0), plan.channels):
        return False
    return all(
        type(block) is GraphBlock
        and block.residual
        and not block.act_first
        and width // groups <= _WIDEST
        and _fits_conv(block.conv, width, groups, x, neighbors)
        and norm_native.slope_of(block.act) is not None
        and _fits_norm(block.norm, x, width)
        and not observed(block)
        for block, width, groups in zip(cycle.blocks, plan.widths, plan.groups, strict=True)
    ) and all(_fits_norm(norm, x, width) for norm, width in zip(cycle.norms, plan.widths, strict=False))


def _fits_norm(norm: nn.Module, x: Tensor, width: int) -> bool:
    return type(norm) is nn.BatchNorm1d and norm_native.fits(norm, x.size(0), width, small=True)


def _fits_conv(conv: nn.Module, width: int, groups: int, x: Tensor, neighbors: Neighbors) -> bool:
    return (
        type(conv) is EdgeConv
        and conv.norm is None
        and type(conv.act) is nn.Identity
        and conv.lin.bias is None
        and conv.groups == groups
        and conv.lin.weight.shape == (width, 2 * width // groups)
        and not observed(conv, conv.lin, conv.act)
        and not messages_observed(conv)
        and edge_native.fits_graph(x.size(0), conv.lin.weight, neighbors, groups)
    )


def _fits_transfers(shortcut: nn.Module, cycle: MGICBlock, x: Tensor) -> bool:
    widths, groups = cycle.hierarchy.widths, cycle.hierarchy.groups
    maps: list[tuple[nn.Module, int, int, int]] = []
    if type(shortcut) is GroupedLinear:
        maps.append((shortcut, x.size(1), widths[0], shortcut.groups))
    elif type(shortcut) is not nn.Identity or x.size(1) != widths[0]:
        return False
    steps = zip(pairwise(widths), groups, cycle.restrictions, cycle.prolongations, strict=False)
    for (fine, coarse), size, down, up in steps:
        if type(down) is not Restriction or type(up) is not Prolongation or observed(down, up):
            return False
        maps += [(down.map, fine, coarse, size), (up.map, coarse, fine, size)]
    return all(
        type(linear) is GroupedLinear
        and linear.bias is None
        and linear.channel_dim == -1
        and linear.groups == size
        and linear.weight.shape == (width_out, width_in // size)
        and not (width_in // size % 8 or width_out // size % 8)
        and applies(linear.weight)
        and not observed(linear)
        for linear, width_in, width_out, size in maps
    )
