"""k-NN on a GPU by one kernel, and once more by differences where rounding could have decided."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from mgic_geo.graph.gpu.when import serves
from mgic_geo.graph.knn_chunked import knn_chunked
from mgic_geo.graph.knn_plain import DIRECT_DIMENSIONS

__all__ = ["fits", "neighbors"]

_MOST = 63
"""Neighbours up to which the kernel keeps what is near in registers."""
_TILE, _WARPS = {"QUERIES": 32, "POINTS": 64, "CHUNK": 32}, 4
_FEW = 8
"""Points of which at most one is looked at twice."""


def fits(x: Tensor, k: int) -> bool:
    """Whether the kernel takes these points (B, N, C): float32 on a GPU that Triton serves."""
    return serves(x) and x.dtype == torch.float32 and k <= _MOST and x.numel() > 0


def neighbors(x: Tensor, centred: Tensor, norms: Tensor, k: int, loop: bool) -> Tensor:
    """As :func:`mgic_geo.graph.knn_chunked.knn_chunked`, of the same arguments."""
    clouds, points, channels = x.shape
    if bool(norms.amax() > torch.finfo(x.dtype).max / 8):  # differences and products would overflow
        return knn_chunked(x, centred, norms, k, loop)
    x = x.contiguous()
    table = torch.empty(clouds, points, k, dtype=torch.long, device=x.device)
    doubt = torch.empty(clouds, points, dtype=torch.bool, device=x.device)
    if channels <= DIRECT_DIMENSIONS:
        _launch(x, norms, table, doubt, k, loop, None)
        return table
    _launch(centred.contiguous(), norms.contiguous(), table, doubt, k, loop, None, direct=False)
    again = doubt.view(-1).nonzero().view(-1)
    if _FEW * again.numel() > doubt.numel():  # points that coincide, say, which are settled among candidates
        return knn_chunked(x, centred, norms, k, loop)
    if again.numel():
        _launch(x, norms, table, doubt, k, loop, again)
    return table


def _launch(
    x: Tensor,
    norms: Tensor,
    table: Tensor,
    doubt: Tensor,
    k: int,
    loop: bool,
    listed: Tensor | None,
    direct: bool = True,
) -> None:
    from mgic_geo.graph.gpu.knn_kernels import nearest

    clouds, points, channels = x.shape
    keep = min(k + (not direct), points)  # one more than asked shows how clear the cut is
    queries, times = (points, clouds) if listed is None else (listed.numel(), 1)
    # Products are summed up one after another; where all round alike the bound for random rounding fails.
    factor = torch.finfo(x.dtype).eps * max(1.5 * channels**0.5, channels / 8)
    kernel: Any = nearest
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        kernel[(times * -(-queries // _TILE["QUERIES"]),)](
            x, norms, table if listed is None else listed, table, doubt, queries, points, channels, keep, k,
            factor, DIRECT=direct, LISTED=listed is not None, LOOP=loop, KEEP=1 << (keep - 1).bit_length(),
            num_warps=_WARPS, **_TILE,
        )  # fmt: skip
