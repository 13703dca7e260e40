"""k-NN on the CPU by products of bytes, which leave a few candidates, and differences among those."""

from __future__ import annotations

import torch
from torch import Tensor

from mgic_geo.native import applies, bytewise, run

__all__ = ["fits", "neighbors"]

# The bound on the candidates is tight for a few neighbours among not too few points; sums of products have
# 32 bits.
_MOST_NEIGHBORS, _LEAST_POINTS, _MOST_DIMENSIONS = 31, 128, 2**14
_MOST_POINTS = (2, 2**10), (7, 2**14), (_MOST_DIMENSIONS, 2**17)
"""Up to so many dimensions, so many points: of more, steps of 1/127 do not tell enough apart."""
_MOST_DOUBTS = 1 / 16
"""Share of points with too many candidates up to which these few are done by differences to all."""


def fits(x: Tensor, k: int) -> bool:
    """Whether this form takes points (B, N, C)."""
    clouds, points, channels = x.shape
    most = next((most for dimensions, most in _MOST_POINTS if channels <= dimensions), 0)
    sizes = clouds > 0 and channels > 0 and _LEAST_POINTS <= points <= most
    return sizes and k <= _MOST_NEIGHBORS and applies(x) and bytewise()


def neighbors(x: Tensor, k: int, loop: bool) -> Tensor | None:
    """The k nearest of each point by differences in float32, as :func:`mgic_geo.knn` has them.

    Args:
        x: (B, N, C) points.
        k: Number of neighbours.
        loop: Count a point as its own.

    Returns:
        (B, N, k) places within each cloud; None where bytes leave too many candidates, and where points are
        not finite or their squares overflow.
    """
    clouds, points, channels = x.shape
    x = x.contiguous()
    wide, deep = points + -points % 32, channels + -channels % 16
    table = torch.empty(clouds, points, k, dtype=torch.long, device=x.device)
    doubt, finite, made = (
        torch.empty(size, dtype=torch.uint8, device=x.device)
        for size in (clouds * points, clouds, clouds * wide * (2 * deep + 16))
    )
    work = x.new_empty(clouds * deep + torch.get_num_threads() * 32 * (wide + 48))
    sizes = clouds, points, wide, channels, deep, k, int(loop)
    run("knn_bytes", x, *sizes, table, doubt, finite, made, work)
    again = doubt.nonzero().view(-1)
    if not bool(finite.all()) or again.numel() > _MOST_DOUBTS * doubt.numel():
        return None
    run("knn_settle", x, points, channels, again, again.numel(), k, int(loop), table)
    return table
