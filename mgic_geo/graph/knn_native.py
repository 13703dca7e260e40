"""k-NN on the CPU by compiled loops: selection without sorting, and differences where they decide."""

from __future__ import annotations

import torch
from torch import Tensor

from mgic_geo.graph.knn_plain import DIRECT_DIMENSIONS
from mgic_geo.native import applies, kernels

__all__ = ["fits", "neighbors"]

_MOST = 64
"""Neighbours up to which the loops keep a short sorted list."""
_TILE = 2**18
"""Products at once, which stay in the second-level cache until the least of them are chosen."""


def fits(x: Tensor, k: int) -> bool:
    """Whether the loops take these points (B, N, C)."""
    return applies(x) and k <= _MOST and x.numel() > 0


def neighbors(x: Tensor, k: int, loop: bool) -> Tensor:
    """As :func:`mgic_geo.knn`: (B, N, C) finite points to (B, N, k) places within each cloud.

    Up to four dimensions distances are differences at once. Above, they come from matrix products, and points for
    which rounding could have decided who is near are done again by differences.
    """
    native, threads = kernels(), torch.get_num_threads()
    assert native is not None
    clouds, points, channels = x.shape
    table = torch.empty(clouds, points, k, dtype=torch.long)
    if channels <= DIRECT_DIMENSIONS:
        planes = x.transpose(1, 2).contiguous()
        sizes = clouds, channels, points, k, int(loop)
        native.mgic_knn_direct(planes.data_ptr(), *sizes, table.data_ptr(), threads)
        return table
    x = x.contiguous()
    centred = x - x.mean(1, keepdim=True)  # smaller norms, less rounding
    norms = centred.square().sum(-1)
    doubt = torch.empty(clouds, points, dtype=torch.uint8)
    rows = max(1, min(points, _TILE // points))
    buffer = x.new_empty(rows, points)
    noise = 1.5 * torch.finfo(x.dtype).eps * channels**0.5
    keep = min(k + 1, points)  # one more than asked shows how clear the cut is
    for cloud in range(clouds):
        turned = centred[cloud].T
        for first in range(0, points, rows):
            query = centred[cloud, first : first + rows]
            product = buffer[: query.size(0)]
            torch.mm(query, turned, out=product)
            native.mgic_knn_select(
                product.data_ptr(), norms[cloud].data_ptr(), query.size(0), points, first, k, keep, int(loop), noise,
                table[cloud, first].data_ptr(), doubt[cloud, first:].data_ptr(), threads,
            )  # fmt: skip
    again = doubt.view(-1).nonzero().view(-1)
    native.mgic_knn_settle(
        x.data_ptr(), points, channels, again.data_ptr(), again.numel(), k, int(loop), table.data_ptr(), threads
    )
    return table
