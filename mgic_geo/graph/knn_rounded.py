"""k-NN on the CPU by products of rounded coordinates, which leave few candidates, and their differences."""

from __future__ import annotations

import torch
from torch import Tensor

from mgic_geo.native import applies, has_vnni, run

__all__ = ["fits", "neighbors"]

# The bound on the candidates is tight for a few neighbours among not too few points.
_MOST_NEIGHBORS, _LEAST_POINTS = 31, 128
_MOST_POINTS = (2, 2**10), (7, 2**14), (2**16, 2**17)
"""Up to so many dimensions, so many points: more lie too close together for the steps of bytes."""
_ROOM = 32 * (48 + 256 + 4) + 64
"""What room_of in the loops has beside 33 numbers a point."""
_MOST_DOUBTS = 1 / 16
"""Share of points with too many candidates up to which these few are done by differences to all."""


def fits(x: Tensor, k: int) -> bool:
    """Whether this form takes points (B, N, C)."""
    clouds, points, channels = x.shape
    most = next((most for dimensions, most in _MOST_POINTS if channels <= dimensions), 0)
    sizes = clouds > 0 and channels > 0 and _LEAST_POINTS <= points <= most
    return sizes and k <= _MOST_NEIGHBORS and applies(x) and has_vnni()


def neighbors(x: Tensor, k: int, loop: bool) -> Tensor | None:
    """The k nearest of each point by differences in float32, as :func:`mgic_geo.knn` has them.

    Args:
        x: (B, N, C) points.
        k: Number of neighbours.
        loop: Count a point as its own.

    Returns:
        (B, N, k) places within each cloud; None where rounding leaves too many candidates, and where points
        are not finite or their squares overflow.
    """
    clouds, points, channels = x.shape
    x = x.contiguous()
    wide, deep = points + -points % 32, channels + -channels % 16
    table = torch.empty(clouds, points, k, dtype=torch.long, device=x.device)
    doubt = torch.empty(clouds * points, dtype=torch.uint8, device=x.device)
    finite = torch.empty(clouds, dtype=torch.uint8, device=x.device)
    made = torch.empty(clouds * wide * (deep + 4), dtype=torch.int32, device=x.device)
    work = x.new_empty(clouds * 2 * deep + torch.get_num_threads() * (33 * wide + _ROOM))
    sizes = clouds, points, wide, channels, deep, k, int(loop)
    run("knn_rounded", x, *sizes, table, doubt, finite, made, work)
    again = doubt.nonzero().view(-1)
    if not bool(finite.all()) or again.numel() > _MOST_DOUBTS * doubt.numel():
        return None
    run("knn_settle", x, points, channels, again, again.numel(), k, int(loop), table)
    return table
