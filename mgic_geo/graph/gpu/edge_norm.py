"""The largest of a node's edges u_i + v_j, normalised over all edges, on a GPU: three kernels each way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mgic_geo.core.twice import gradients, needs_double_backward
from mgic_geo.graph.gpu.graph import chosen, graph_tensors, layout, parts, rank_type
from mgic_geo.graph.gpu.launch import height, launch
from mgic_geo.graph.neighbors import Neighbors

__all__ = ["edge_norm"]

_ROWS = 2
"""Times as many nodes a tile where nothing is gathered."""
_JOIN = {"ROWS": 128, "COLUMNS": 16}
"""Moments of tiles, and channels, that a program joins at once."""


def edge_norm(
    uv: Tensor, weight: Tensor, bias: Tensor, neighbors: Neighbors, groups: int, eps: float, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    r""":math:`\max_{j \in \mathcal{N}(i)} \sigma(\mathcal{N}(u_i + v_j))` with the moments of all edges.

    Where a scale is zero all neighbours tie, and its gradient is that of their mean, as PyG's.

    Args:
        uv: (N, 2C) of each of ``groups`` groups first u, then v, on a GPU.
        weight: (C,) scales of the normalisation, none negative.
        bias: (C,) of the normalisation.
        neighbors: The graph of the N nodes, any degrees; some edges.
        groups: Number of channel groups.
        eps: Of the normalisation.
        slope: Of the activation below zero, 1 for none.

    Returns:
        (N, C), at a node without neighbours what 0 becomes; mean and biased variance (C,) of the edges, in
        float32 (of float64 in float64).
    """
    gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (uv, weight, bias))
    small = rank_type(neighbors) == torch.uint8
    tensors = graph_tensors(neighbors, gradient)
    found = _edge_norm(uv, weight, bias, *tensors, groups, eps, slope, small)
    return found[0], found[1], found[2]


@torch.library.custom_op("mgic_geo::edge_norm", mutates_args=())
def _edge_norm(
    uv: Tensor,
    weight: Tensor,
    bias: Tensor,
    rowptr: Tensor,
    col: Tensor,
    transposed_rowptr: Tensor,
    transposed_col: Tensor,
    ranks: Tensor,
    groups: int,
    eps: float,
    slope: float,
    small: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The output, mean and variance; then what the gradient reads: maxima, nodes' means, and ranks."""
    uv, weight, bias = uv.contiguous(), weight.contiguous(), bias.contiguous()
    out, mean, var, z, node_mean, best = found = _empty(uv, small)
    shape = nodes, channels = uv.size(0), uv.size(1) // 2
    tiles = -(-nodes // height(channels))
    moments = z.new_empty(3, tiles, channels)
    u, v = parts(uv, groups)
    launch(
        "gather_max", uv, shape, u, v, rowptr, col, z, best, node_mean, moments, nodes, channels,
        *layout(uv, groups), 1, HAS_U=True, BEST="rank", MOMENTS=True,
    )  # fmt: skip
    launch("join_moments", uv, (1, channels), moments, mean, var, tiles, channels, **_JOIN)
    launch(
        "norm_apply", uv, shape, z, mean, var, weight, bias, out, nodes, channels,
        rows=_ROWS, eps=eps, slope=slope,
    )  # fmt: skip
    return found


@_edge_norm.register_fake
def _(
    uv: Tensor, weight: Tensor, bias: Tensor, rowptr: Tensor, col: Tensor, transposed_rowptr: Tensor,
    transposed_col: Tensor, ranks: Tensor, groups: int, eps: float, slope: float, small: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return _empty(uv, small)


def _empty(uv: Tensor, small: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    shape = uv.size(0), uv.size(1) // 2
    full = torch.float64 if uv.dtype == torch.float64 else torch.float32
    mean, var = uv.new_empty(shape[1], dtype=full), uv.new_empty(shape[1], dtype=full)
    z, node_mean = uv.new_empty(shape, dtype=full), uv.new_empty(shape, dtype=full)
    best = uv.new_empty(shape, dtype=torch.uint8 if small else torch.int32)
    return uv.new_empty(shape), mean, var, z, node_mean, best


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.groups, ctx.eps, ctx.slope, _small = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 12
    uv, weight, bias, rowptr, col, transposed_rowptr, transposed_col, ranks, *found = ctx.saved_tensors
    if needs_double_backward(grad):
        best = found[-1]

        def plain(uv: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return _plain(uv, weight, bias, rowptr, col, best, ctx.groups, ctx.eps, ctx.slope)

        return (*gradients(plain, (uv, weight, bias), grad), *[None] * 9)
    grad_uv, grad_weight, grad_bias = _edge_norm_grad(
        grad, uv, weight, bias, *found, rowptr, transposed_rowptr, transposed_col, ranks,
        col.numel(), ctx.groups, ctx.eps, ctx.slope,
    )  # fmt: skip
    return grad_uv, grad_weight, grad_bias, *[None] * 9


_edge_norm.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("mgic_geo::edge_norm_grad", mutates_args=())
def _edge_norm_grad(
    grad: Tensor,
    uv: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    z: Tensor,
    node_mean: Tensor,
    best: Tensor,
    rowptr: Tensor,
    transposed_rowptr: Tensor,
    transposed_col: Tensor,
    ranks: Tensor,
    edges: int,
    groups: int,
    eps: float,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of uv, weight and bias."""
    shape = nodes, channels = uv.size(0), uv.size(1) // 2
    grad, uv, weight, bias = (x.contiguous() for x in (grad, uv, weight, bias))
    grad_uv, hidden = torch.empty_like(uv), torch.empty_like(z)
    tiles = -(-nodes // height(channels, _ROWS))
    by_tile = z.new_empty(2, tiles, channels)
    launch(
        "norm_sums", uv, shape, grad, z, node_mean, mean, var, weight, bias, hidden, by_tile, nodes, channels,
        rows=_ROWS, eps=eps, slope=slope,
    )  # fmt: skip
    sums = by_tile.sum(1)
    launch(
        "edge_gradients", uv, shape, hidden, best, *parts(uv, groups), node_mean, mean, var, weight, sums,
        rowptr, transposed_rowptr, transposed_col, ranks, *parts(grad_uv, groups), nodes, channels,
        *layout(uv, groups), edges, sides=2, eps=eps, MOMENTS=True,
    )  # fmt: skip
    grad_bias, grad_weight = sums[0], sums[1] * torch.rsqrt(var + eps)
    return grad_uv, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype)


@_edge_norm_grad.register_fake
def _(
    grad: Tensor, uv: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, z: Tensor,
    node_mean: Tensor, best: Tensor, rowptr: Tensor, transposed_rowptr: Tensor, transposed_col: Tensor,
    ranks: Tensor, edges: int, groups: int, eps: float, slope: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return uv.new_empty(uv.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _plain(
    uv: Tensor,
    weight: Tensor,
    bias: Tensor,
    rowptr: Tensor,
    col: Tensor,
    best: Tensor,
    groups: int,
    eps: float,
    slope: float,
) -> Tensor:
    """The same over edges in torch's operators, with the neighbours that attain the maximum."""
    full = torch.float64 if uv.dtype == torch.float64 else torch.float32
    u, v = (part.flatten(1) for part in parts(uv.to(full), groups))
    degree, col = rowptr.diff(), col.long()
    target = torch.arange(u.size(0), device=u.device).repeat_interleave(degree, output_size=col.numel())
    var, mean = torch.var_mean(u[target] + v[col], 0, correction=0)
    degree = degree.unsqueeze(1)
    tied = u + torch.zeros_like(u).index_add(0, target, v[col]) / degree.clamp(min=1)
    z = torch.where(weight == 0, tied, u + v.gather(0, chosen(rowptr, col, best)))
    out = (torch.where(degree > 0, z, 0) - mean) * (weight * torch.rsqrt(var + eps)) + bias
    return torch.where(out > 0, out, slope * out).to(uv.dtype)
