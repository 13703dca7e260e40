"""Batch normalisation over edges, computed from node values only."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, distributed, nn

from mgic_geo.core import norm_native
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.graph.reduce import neighbor_sum

__all__ = ["by_batch", "edge_batch_norm", "track_centered"]


def by_batch(norm: nn.BatchNorm1d) -> bool:
    """Whether a normalisation takes the statistics of its input, in training or for want of running ones."""
    return norm.training or norm.running_mean is None or norm.running_var is None


def edge_batch_norm(
    norm: nn.BatchNorm1d, out: Tensor, u: Tensor, v: Tensor, sign: Tensor, neighbors: Neighbors
) -> Tensor:
    """What ``norm`` makes of the edge values u_i + v_j, where node i keeps its largest.

    Mean and variance are those of all edges, and the running statistics advance as ``norm``'s own.

    Args:
        norm: Holds scale, shift and running statistics; its own forward is not called.
        out: (N, C) maxima of u_i + v_j over each node's neighbours.
        u: (N, C) part of the edge values that belongs to the target.
        v: (num_sources, C) part that belongs to the source.
        sign: (C,) 1 or -1: the channels whose values come with their sign flipped.
        neighbors: The graph.

    Returns:
        (N, C) normalised maxima.

    Raises:
        ValueError: In training on fewer than 2 edges, or with a ``SyncBatchNorm`` among several processes.
    """
    dtype, out, u, v = out.dtype, _full(out), _full(u), _full(v)
    degree = neighbors.in_degree.unsqueeze(1).to(u.dtype)
    if by_batch(norm):
        _refuse_sync(norm)
        mean, var, total = _edge_moments(u, v, degree, neighbors)
        if norm.training:
            norm_native.track(norm, sign * mean, var, neighbors.col.numel())
    else:
        mean, var = sign * cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        total = neighbor_sum(v, neighbors) if torch.is_grad_enabled() else None
    if total is not None and torch.is_grad_enabled():
        # All neighbours tie where the scale is zero; its gradient is that of their mean, as PyG's.
        out = torch.where(norm.weight == 0, u + total / degree.clamp(min=1), out)
    scale = sign * norm.weight * torch.rsqrt(var + norm.eps)
    out = (out - mean) * scale
    return (out if norm.bias is None else out + norm.bias).to(dtype)


@torch.no_grad()
def track_centered(
    norm: nn.BatchNorm1d, sign: Tensor, mean: Tensor, var: Tensor, weight: Tensor, center: Tensor, edges: int
) -> None:
    """Advance the running statistics by the moments of edges whose points had their common part taken off.

    Args:
        norm: The normalisation over edges.
        sign: (C,) -1 where ``weight`` has its sign flipped.
        mean: (C,) of the edges.
        var: (C,) of the edges, biased.
        weight: (2C, C_in / groups) of the map to u and v, as ``edge_maps.both_maps`` gives it.
        center: (C_in,) the common part.
        edges: Number of edges.
    """
    groups = center.numel() // weight.size(1)
    # It counts for x_i alone: u + v of one and the same point.
    both = weight.unflatten(0, (groups, 2, -1)).sum(1).to(mean.dtype)
    with torch.autocast(mean.device.type, enabled=False):
        common = (both @ center.to(mean.dtype).view(groups, -1, 1)).flatten()
    norm_native.track(norm, sign * (mean + common), var, edges)


def _full(x: Tensor) -> Tensor:
    """Statistics need float32 where autocast hands over half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _refuse_sync(norm: nn.Module) -> None:
    ranks = distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
    if isinstance(norm, nn.SyncBatchNorm) and ranks > 1:
        raise ValueError(
            f"EdgeConv normalises over its own edges and shares no statistics between the {ranks} processes; "
            "leave its norm out of convert_sync_batchnorm (sync_batchnorm=False in Lightning)"
        )


def _edge_moments(
    u: Tensor, v: Tensor, in_degree: Tensor, neighbors: Neighbors
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and (biased) variance per channel of u_i + v_j over all edges, and the sum of v_j of each node.

    From centred node values, since squares of what has a common part would cancel.
    """
    edges = neighbors.col.numel()
    if edges < 2:
        raise ValueError(f"batch normalisation over edges needs at least 2 edges in training, got {edges}")
    out_degree = neighbors.out_degree.unsqueeze(1).to(v.dtype)
    mean_u = (in_degree * u).sum(0) / edges
    mean_v = (out_degree * v).sum(0) / edges
    u, v = u - mean_u, v - mean_v
    total = neighbor_sum(v, neighbors)
    var = ((in_degree * u * u).sum(0) + 2 * (u * total).sum(0) + (out_degree * v * v).sum(0)) / edges
    return mean_u + mean_v, var.clamp(min=0), total + in_degree * mean_v
