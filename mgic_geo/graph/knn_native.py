"""k-NN on the CPU by compiled loops: selection without sorting, and differences where they decide."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mgic_geo.graph.knn_plain import DIRECT_DIMENSIONS
from mgic_geo.native import applies, run

__all__ = ["fits", "neighbors"]

_MOST = 64
"""Neighbours up to which the loops keep a short sorted list."""
# As the loops know them: points side by side, queries at once, products of each at once.
_PANEL, _QUERIES, _CHUNK = 32, 32, 4096
# Each product is computed once for both its points where they are few enough to keep all, and turning them
# costs less than computing them; of as many clouds at once as there are threads, and within this many floats.
_MOST_POINTS, _LEAST_DIMENSIONS, _MOST_PRODUCTS = 2048, 32, 2**24


def fits(x: Tensor, k: int) -> bool:
    """Whether the loops take these points (B, N, C)."""
    return applies(x) and k <= _MOST and x.numel() > 0


def neighbors(x: Tensor, centred: Tensor, norms: Tensor, k: int, loop: bool) -> Tensor:
    """As :func:`mgic_geo.knn`: (B, N, C) finite points to (B, N, k) places within each cloud.

    Up to four dimensions distances are differences at once. Above, they come from matrix products, and points
    for which rounding could have decided who is near are done again by differences.

    Args:
        x: The points.
        centred: The points less their cloud's mean; above four dimensions only.
        norms: (B, N) finite squared norms of the latter.
        k: Number of neighbours.
        loop: Count a point as its own.
    """
    clouds, points, channels = x.shape
    table = torch.empty(clouds, points, k, dtype=torch.long, device=x.device)
    if channels <= DIRECT_DIMENSIONS:
        planes = x.transpose(1, 2).contiguous()
        sizes = clouds, channels, points, k, int(loop)
        run("knn_direct", planes, *sizes, table)
        return table
    x, norms = x.contiguous(), norms.contiguous()
    doubt = torch.empty(clouds, points, dtype=torch.uint8, device=x.device)
    wide = points + -points % _PANEL
    noise = 1.5 * torch.finfo(x.dtype).eps * channels**0.5
    keep = min(k + 1, points)  # one more than asked shows how clear the cut is
    threads, sizes = torch.get_num_threads(), (clouds, points, wide, channels, k, keep, int(loop))
    centred = centred.contiguous()
    if points <= _MOST_POINTS and channels >= _LEAST_DIMENSIONS:
        share = wide * (wide + channels)
        together = min(threads, clouds, max(1, _MOST_PRODUCTS // share))
        work = x.new_empty(together * share)
        run("knn_symmetric", centred, norms, *sizes, noise, table, doubt, work, together)
    else:
        panels = F.pad(centred, (0, 0, 0, wide - points)).view(clouds, -1, _PANEL, channels)
        panels = panels.transpose(2, 3).contiguous()
        work = x.new_empty(threads * _QUERIES * min(wide, _CHUNK))
        run("knn_products", centred, panels, norms, *sizes, noise, table, doubt, work)
    again = doubt.view(-1).nonzero().view(-1)
    run("knn_settle", x, points, channels, again, again.numel(), k, int(loop), table)
    return table
