"""k-NN on a GPU by one kernel, and once more by differences where rounding could have decided."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mgic_geo.graph.gpu.when import serves
from mgic_geo.graph.knn_plain import DIRECT_DIMENSIONS

__all__ = ["fits", "neighbors"]

_MOST = 63
"""Neighbours up to which the kernel keeps what is near in registers."""
_TILE, _WARPS = {"QUERIES": 32, "POINTS": 64, "CHUNK": 32}, 4
_FEW = 8
"""Points of which at most one is looked at twice."""


def fits(x: Tensor, k: int, largest: float = 0.0) -> bool:
    """Whether the kernel takes points (..., C): float32 on a GPU that Triton serves.

    ``largest`` is that of their squared norms, for differences and products must not overflow.
    """
    sizes = serves(x) and x.dtype == torch.float32 and k <= _MOST and x.numel() > 0
    return sizes and largest <= torch.finfo(x.dtype).max / 8


def neighbors(
    x: Tensor, centred: Tensor, norms: Tensor, starts: Tensor, longest: int, k: int, loop: bool
) -> Tensor:
    """As :func:`mgic_geo.knn`: (N, C) points of any clouds to (N, k) places within each cloud.

    Args:
        x: The points, cloud after cloud.
        centred: The points less their cloud's mean; above four dimensions only.
        norms: (N,) squared norms of the latter.
        starts: (B + 1,) where each cloud starts, and where the last one ends.
        longest: Number of points of the largest cloud.
        k: Number of neighbours.
        loop: Count a point as its own.
    """
    table = torch.empty(x.size(0), k, dtype=torch.long, device=x.device)
    doubt = torch.empty(x.size(0), dtype=torch.bool, device=x.device)
    launch = partial(_launch, norms.contiguous(), starts, longest, table, doubt, k, loop)
    if x.size(1) <= DIRECT_DIMENSIONS:
        launch(x.contiguous())
        return table
    launch(centred.contiguous(), direct=False)
    again = doubt.nonzero().view(-1)
    # Of most points, which coincide, say, differences are soonest taken tile by tile.
    if again.numel():
        launch(x.contiguous(), again if _FEW * again.numel() <= doubt.numel() else None)
    return table


def _launch(
    norms: Tensor,
    starts: Tensor,
    longest: int,
    table: Tensor,
    doubt: Tensor,
    k: int,
    loop: bool,
    x: Tensor,
    listed: Tensor | None = None,
    direct: bool = True,
) -> None:
    from mgic_geo.graph.gpu.knn_kernels import nearest

    channels = x.size(1)
    keep = min(k + (not direct), longest)  # one more than asked shows how clear the cut is
    queries, times, clouds = longest, starts.numel() - 1, starts
    if listed is not None:
        queries, times, clouds = listed.numel(), 1, torch.bucketize(listed, starts[1:], right=True)
    # Products are summed up one after another; where all round alike the bound for random rounding fails.
    factor = torch.finfo(x.dtype).eps * max(1.5 * channels**0.5, channels / 8)
    kernel: Any = nearest
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        kernel[(times * -(-queries // _TILE["QUERIES"]),)](
            x, norms, starts, table if listed is None else listed, clouds, table, doubt, queries, channels,
            keep, k, factor, DIRECT=direct, LISTED=listed is not None, LOOP=loop,
            KEEP=1 << (keep - 1).bit_length(), num_warps=_WARPS, **_TILE,
        )  # fmt: skip
