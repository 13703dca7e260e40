"""Maximum and sum over neighbours on a GPU, one kernel each, whatever the degrees."""

from __future__ import annotations

import torch
from torch import Tensor

from mgic_geo.graph.gpu.launch import launch

__all__ = ["neighbor_max", "neighbor_sum"]


def neighbor_max(y: Tensor, rowptr: Tensor, col: Tensor, clouds: int) -> tuple[Tensor, Tensor]:
    """Maxima (N, C) and the sources that attain them, int32 within each cloud; 0 without neighbours."""
    y, rowptr, col = y.contiguous(), rowptr.contiguous(), col.contiguous()
    nodes, channels = rowptr.numel() - 1, y.size(1)
    out = y.new_empty(nodes, channels)
    best = torch.empty(out.shape, dtype=torch.int32, device=y.device)
    if out.numel():
        size = max(1, y.size(0) // clouds)
        launch(
            "gather_max", y, (nodes, channels), y, y, rowptr, col, out, best, out, out, nodes, channels,
            channels, channels, channels, size, HAS_U=False, BEST="source", MOMENTS=False,
        )  # fmt: skip
    return out, best


def neighbor_sum(y: Tensor, rowptr: Tensor, col: Tensor) -> Tensor:
    """Sums (N, C), in order of the edges."""
    y, rowptr, col = y.contiguous(), rowptr.contiguous(), col.contiguous()
    nodes, channels = rowptr.numel() - 1, y.size(1)
    out = y.new_empty(nodes, channels)
    if out.numel():
        launch("gather_sum", y, (nodes, channels), y, rowptr, col, out, nodes, channels)
    return out
