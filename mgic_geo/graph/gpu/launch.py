"""How a kernel over tiles of nodes and channels is started."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

__all__ = ["height", "launch"]

_TILE, _COLUMNS, _WARPS = 1024, 128, 4
"""Numbers of a tile, eight a thread; channels of one at most; and warps that share it."""


def height(channels: int, rows: int = 1) -> int:
    """Nodes of a tile of features so wide; ``rows`` times as many as where neighbours are gathered."""
    return rows * max(1, _TILE // _columns(channels))


def launch(
    name: str,
    like: Tensor,
    shape: tuple[int, int],
    *arguments: Any,
    rows: int = 1,
    sides: int = 1,
    **constants: Any,
) -> None:
    """Start ``name`` of the kernels on all tiles.

    Args:
        name: Of a kernel in ``edge_kernels``.
        like: On the device, and of the type, that the work is on; sums are in float32, of float64 in float64.
        shape: Nodes and channels.
        *arguments: Of the kernel.
        rows: As :func:`height`.
        sides: Programs of each tile.
        **constants: Of the kernel.
    """
    import triton.language as tl

    from mgic_geo.graph.gpu import edge_kernels

    nodes, channels = shape
    tile = {"ROWS": height(channels, rows), "COLUMNS": _columns(channels), **constants}
    grid = -(-nodes // tile["ROWS"]), -(-channels // tile["COLUMNS"]), sides
    kernel: Any = getattr(edge_kernels, name)
    # Triton starts kernels on the current device.
    with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
        accumulator = tl.float64 if like.dtype == torch.float64 else tl.float32
        kernel[grid](*arguments, ACC=accumulator, num_warps=_WARPS, **tile)


def _columns(channels: int) -> int:
    return min(_COLUMNS, 1 << (channels - 1).bit_length())
