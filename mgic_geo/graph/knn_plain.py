"""k-NN in a few plain operators, for exported programs: nothing to look at, nothing to register."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DIRECT_DIMENSIONS", "knn_plain"]

DIRECT_DIMENSIONS = 4
"""Up to this dimension squared differences are summed coordinate by coordinate: no cancellation, and on CPU
hardly slower than a matrix product that short."""


def knn_plain(x: Tensor, k: int, loop: bool) -> Tensor:
    """The neighbours that :func:`mgic_geo.knn` gives, but for near ties in many dimensions.

    Above four dimensions a matrix product of centred points proposes twice as many candidates as are asked,
    and differences choose among them, as they do in ``knn`` wherever rounding could have decided. Only where
    more points than that lie within rounding of one another can the choice be another one of them. A runtime
    may multiply in TF32, but must not in half precision, as in autocast. All distances of a cloud are held at
    once, and values are not checked.

    Args:
        x: (B, N, C) float32 or float64 points.
        k: Number of neighbours.
        loop: Whether a point is its own first neighbour; else it is none.

    Returns:
        (B, N, k) int64 indices within each cloud, nearest first.
    """
    clouds, points, channels = x.shape
    number = torch.arange(points, device=x.device)
    itself = -torch.inf if loop else torch.inf
    if channels <= DIRECT_DIMENSIONS:
        distance = sum((c.unsqueeze(2) - c.unsqueeze(1)).square() for c in x.unbind(-1))
        distance = torch.where(number.unsqueeze(1) == number, itself, distance)
        return distance.topk(k, largest=False).indices
    centred = x - x.mean(1, keepdim=True)  # smaller norms, less rounding
    distance = centred.square().sum(-1).unsqueeze(1) - 2 * _products(centred)
    distance = torch.where(number.unsqueeze(1) == number, itself, distance)
    candidates = distance.topk(min(2 * k + 2, points), largest=False).indices
    first = points * torch.arange(clouds, device=x.device).view(-1, 1, 1)
    candidate = x.reshape(-1, channels)[candidates + first]  # (B, N, 2k + 2, C)
    exact = (candidate - x.unsqueeze(2)).square().sum(-1)
    exact = torch.where(candidates == number.unsqueeze(1), itself, exact)
    return candidates.gather(2, exact.topk(k, largest=False).indices)


def _products(x: Tensor) -> Tensor:
    """(B, N, N) inner products of the points of each cloud.

    TF32 keeps 11 bits of a mantissa, so the upper 11 of each coordinate and the rest are multiplied apart,
    but for rests by rests, which are near float32's own rounding. float64 would do, but few runtimes have it.
    """
    scaled = x * (2**13 + 1)
    upper = scaled - (scaled - x)  # Dekker's splitting
    rest = x - upper
    return torch.cat([upper, upper, rest], -1) @ torch.cat([upper, rest, upper], -1).transpose(1, 2)
