"""EdgeConv with its normalisation over edges by compiled loops, in training on k-NN graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mgic_geo.core import norm_native
from mgic_geo.core.twice import gradients, must_use_torch
from mgic_geo.graph.edge_native import SHARES, padded, sizes_of
from mgic_geo.graph.edge_norm import track_centered
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.native import run

__all__ = ["fits_norm", "normalised_edge_conv"]


def fits_norm(norm: nn.BatchNorm1d, nodes: int, channels: int) -> bool:
    """Whether :func:`normalised_edge_conv` serves this one: where a scale is zero all neighbours tie."""
    return norm_native.fits(norm, nodes, channels) and not bool((norm.weight == 0).any())


def normalised_edge_conv(
    x: Tensor,
    weight: Tensor,
    norm: nn.BatchNorm1d,
    sign: Tensor,
    slope: float,
    neighbors: Neighbors,
    groups: int,
) -> Tensor:
    r""":math:`\max_j \sigma(\mathcal{N}(u_i + v_j))`, the statistics being those of all edges.

    The gradient needs x, the maxima and a byte a value; u and v are computed anew a cloud at a time. Where
    :func:`edge_native.fits` and :func:`norm_native.fits` say so.

    Args:
        x: (N, C_in).
        weight: (2C, C_in / groups): of each group first the rows of u, then those of v, with the sign flipped
            where ``sign`` is -1.
        norm: Batch normalisation that :func:`fits_norm` lets through.
        sign: (C,) that of its scales.
        slope: Of the activation below zero, 1 for none.
        neighbors: The k-NN graph of the N nodes.
        groups: Number of channel groups.

    Returns:
        (N, C).
    """
    # u and v nearly cancel where points are far from the origin, so that the common part goes first.
    x, center, weight = padded(x, x.detach().mean(0), weight)
    out, mean, var = _EdgeNorm.apply(
        x, weight, sign * norm.weight, norm.bias, center, neighbors.col32, neighbors.out_degree.to(x.dtype),
        neighbors.clouds, groups, norm.eps, slope,
    )  # fmt: skip
    track_centered(norm, sign, mean, var, weight, center, neighbors.col.numel())
    return out


class _EdgeNorm(torch.autograd.Function):
    """Gives mean and (biased) variance of the centred edges, too."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        bias: Tensor,
        center: Tensor,
        col: Tensor,
        out_degree: Tensor,
        clouds: int,
        groups: int,
        eps: float,
        slope: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        x, col, nodes = x.contiguous(), col.contiguous(), x.size(0)
        channels, sizes = weight.size(0) // 2, sizes_of(x, weight, col, clouds, groups)
        weight_t = weight.view(groups, -1, weight.size(1)).transpose(1, 2).contiguous()
        z, best = x.new_empty(nodes, channels), x.new_empty(nodes, channels, dtype=torch.uint8)
        mean, var, out = x.new_empty(channels), x.new_empty(channels), torch.empty_like(z)
        work = x.new_empty(_scratch(sizes) + clouds * 2 * channels)
        run("edge_norm", x, center, weight_t, col, *sizes, z, best, mean, var, work)
        inv_std_scale = scale * torch.rsqrt(var + eps)
        run("norm_apply", z, None, nodes, channels, mean, inv_std_scale, bias, slope, out)
        ctx.save_for_backward(
            x, weight, scale, bias, center, col, out_degree, weight_t, z, best, mean, var, inv_std_scale
        )
        ctx.sizes, ctx.eps, ctx.slope = sizes, eps, slope
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, scale, bias, center, col, out_degree, weight_t, z, best, mean, var, inv_std_scale = (
            ctx.saved_tensors
        )
        clouds, _size, groups, width, group, degree = ctx.sizes
        if must_use_torch(grad):

            def plain(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
                parts = (x - center).unflatten(1, (groups, width)), weight.unflatten(0, (groups, -1))
                u, v = (part.flatten(1) for part in torch.einsum("ngi,goi->ngo", *parts).chunk(2, 2))
                edges = u.repeat_interleave(degree, 0) + v[col.long()]
                edges = norm_native.plain_norm(edges, scale, bias, ctx.eps, ctx.slope)
                return edges.unflatten(0, (-1, degree)).gather(1, best.long().unsqueeze(1)).squeeze(1)

            return (*gradients(plain, (x, weight, scale, bias), grad), *[None] * 7)
        grad = grad.contiguous()
        grad_scale, grad_bias, average, slopes = norm_native.sums(
            grad, z, mean, var, inv_std_scale, bias, ctx.eps, ctx.slope
        )
        constant, per_value = -inv_std_scale * average / degree, -inv_std_scale * slopes / degree
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_weight = x.new_empty(groups, width, 2 * group)
        work = x.new_empty(_scratch(ctx.sizes) + min(clouds, SHARES) * grad_weight.numel())
        run(
            "edge_norm_grad", grad, z, best, x, center, weight_t, weight.contiguous(), col, out_degree,
            *ctx.sizes, mean, inv_std_scale, bias, ctx.slope, constant, per_value, grad_x, grad_weight, work,
        )  # fmt: skip
        return grad_x, grad_weight.transpose(1, 2).flatten(0, 1), grad_scale, grad_bias, *[None] * 7


def _scratch(sizes: tuple[int, ...]) -> int:
    """What each thread needs for a cloud, together."""
    _clouds, size, groups, width, group, _degree = sizes
    return torch.get_num_threads() * size * groups * (width + 5 * group)
