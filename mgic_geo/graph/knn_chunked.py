"""k-NN in torch's operators: a chunk of distances at once, then its smallest."""

from __future__ import annotations

import torch
from torch import Tensor

from mgic_geo.graph.full_precision import full_precision
from mgic_geo.graph.knn_plain import DIRECT_DIMENSIONS
from mgic_geo.graph.knn_refine import refine

__all__ = ["knn_chunked"]

# Largest number of distances held at once: what stays in a CPU's cache, what fills a GPU.
_CHUNK = {"cpu": 2**20, "cuda": 2**26}


def knn_chunked(x: Tensor, centred: Tensor, norms: Tensor, k: int, loop: bool) -> Tensor:
    """As :func:`mgic_geo.knn`: (B, N, C) finite points to (B, N, k) places within each cloud.

    Args:
        x: The points.
        centred: The points less their cloud's mean; above four dimensions only.
        norms: (B, N) finite squared norms of the latter.
        k: Number of neighbours.
        loop: Count a point as its own.
    """
    clouds, points, channels = x.shape
    direct = channels <= DIRECT_DIMENSIONS
    table = torch.empty(clouds, points, k, dtype=torch.long, device=x.device)
    keep = min(k + 1, points)  # one more than asked shows how clear the cut is
    chunk = _CHUNK.get(x.device.type, _CHUNK["cpu"])
    rows = max(1, min(points, chunk // points))
    together = max(1, chunk // (rows * points)) if rows == points else 1
    buffer = x.new_empty(min(together, clouds) * rows * points)
    for first in range(0, clouds, together):
        cloud, norm = centred[first : first + together], norms[first : first + together]
        for start in range(0, points, rows):
            query = cloud[:, start : start + rows]
            distance = buffer[: cloud.size(0) * query.size(1) * points].view(*query.shape[:2], points)
            if direct:
                _squared_differences(query, cloud, distance)
            else:
                with full_precision(x.device.type):
                    torch.baddbmm(norm.unsqueeze(1), query, cloud.transpose(1, 2), alpha=-2, out=distance)
            distance.diagonal(start, 1, 2).fill_(-torch.inf if loop else torch.inf)
            value, index = distance.topk(keep, largest=False)
            if not direct:
                near = norm[:, start : start + rows]
                refine(x[first : first + together], start, distance, near, value, index, k, loop, chunk)
            table[first : first + together, start : start + rows] = index[..., :k]
    return table


def _squared_differences(query: Tensor, cloud: Tensor, out: Tensor) -> None:
    """(B, R, C) and (B, N, C) to squared distances (B, R, N), written to ``out``."""
    out.zero_()
    for channel in range(cloud.size(-1)):
        difference = query[..., channel].unsqueeze(2) - cloud[..., channel].unsqueeze(1)
        out.addcmul_(difference, difference)
