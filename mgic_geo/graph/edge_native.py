"""EdgeConv on k-NN graphs by compiled loops: maps and maximum a cloud at a time, in the cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mgic_geo.core.twice import gradients, must_use_torch
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.native import applies, run

__all__ = ["SHARES", "edge_conv", "fits", "fits_graph", "padded", "plain", "scratch", "sizes_of"]

_MOST = 255
"""Neighbours of a node whose rank fits a byte."""
_CACHED = 2**17
"""Floats of u and v at once; the loops know the same number."""
SHARES = 32
"""In how many parts, at most, clouds add up gradients of weights; the loops know the same number."""


def fits(x: Tensor, weight: Tensor, neighbors: Neighbors, groups: int) -> bool:
    """Whether :func:`edge_conv` works here: plain float32 on a CPU with compiled loops, and a k-NN graph.

    Args:
        x: (N, C_in) the features that the maps read.
        weight: (C, 2 · C_in / groups) of :class:`EdgeConv`, from which both maps are made.
        neighbors: The graph.
        groups: Number of channel groups.
    """
    return (
        applies(x)
        and fits_graph(x.size(0), weight, neighbors, groups)
        and 2 * x.size(1) == groups * weight.size(1)
    )


def fits_graph(nodes: int, weight: Tensor, neighbors: Neighbors, groups: int) -> bool:
    """The same, but for the features, of which there are ``nodes`` rows."""
    return (
        applies(weight)
        and weight.size(0) % (16 * groups) == 0
        and (groups == 1 or weight.size(1) % 16 == 0)
        and 0 < nodes < 2**30
        and neighbors.num_sources == neighbors.num_targets == nodes
        and nodes % neighbors.clouds == 0
        and neighbors.degree is not None
        and 0 < neighbors.degree <= _MOST
        and neighbors.col.numel() == neighbors.degree * nodes
        and neighbors.col.dtype == torch.int64
        and not torch.is_autocast_enabled("cpu")
        and not (groups == 1 and weight.numel() > _most_dense(neighbors.clouds))
    )


def _most_dense(clouds: int) -> int:
    """Up to which size of a dense layer's weight the loops are the faster way: beyond, a product is all.

    One that outgrows the cache is torch's to block, and a dense layer has a task a cloud, not one a thread.
    """
    return 2**20 if clouds >= torch.get_num_threads() else 2**16


def edge_conv(x: Tensor, weight: Tensor, bias: Tensor | None, neighbors: Neighbors, groups: int) -> Tensor:
    r""":math:`u_i + \max_{j \in \mathcal{N}(i)} v_j`, where one grouped map of x gives u and v.

    Neither u nor v is ever there for more than a cloud; the gradient needs x and a byte a value. Only where
    :func:`fits` says so.

    Args:
        x: (N, C_in).
        weight: (2C, C_in / groups): of each of ``groups`` groups first the rows of u, then those of v.
        bias: (2C,) or None.
        neighbors: The k-NN graph of the N nodes.
        groups: Number of channel groups.

    Returns:
        (N, C).
    """
    x, weight = padded(x, weight)
    return _EdgeConv.apply(x, weight, bias, neighbors.col32, neighbors.clouds, groups)


def padded(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Inputs and their weight, which the loops take by eights; other widths are those of one group."""
    rest = -tensors[-1].size(-1) % 8
    return tuple(F.pad(tensor, (0, rest)) for tensor in tensors) if rest else tensors


class _EdgeConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, col: Tensor, clouds: int, groups: int
    ) -> Tensor:
        x, col = x.contiguous(), col.contiguous()
        ctx.sizes = sizes_of(x, weight, col, clouds, groups)
        out, best = _convolve(x, weight, bias, col, ctx.sizes)
        ctx.save_for_backward(x, weight, bias, col, best)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, bias, col, best = ctx.saved_tensors
        if must_use_torch(grad):

            def again(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
                return plain(x, weight, bias, col, best, ctx.sizes)

            return (*gradients(again, (x, weight, bias), grad), None, None, None)
        grad_x, grad_weight = _differentiate(grad, x, weight, col, best, ctx.sizes, ctx.needs_input_grad[0])
        grad_bias = None
        if bias is not None:  # each value holds one of u and one of v
            grad_u = grad.sum(0).view(ctx.sizes[2], -1)
            grad_bias = torch.stack([grad_u, grad_u], 1).flatten()
        return grad_x, grad_weight, grad_bias, None, None, None


def sizes_of(x: Tensor, weight: Tensor, col: Tensor, clouds: int, groups: int) -> tuple[int, ...]:
    """Clouds, nodes of a cloud, groups, a group's inputs and outputs, neighbours of a node."""
    nodes, (rows, width) = x.size(0), weight.shape
    return clouds, nodes // clouds, groups, width, rows // (2 * groups), col.numel() // nodes


def _convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, col: Tensor, sizes: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Sums u + max v (N, C), and ranks of the neighbours that attain them."""
    threads, channels = torch.get_num_threads(), weight.size(0) // 2
    groups = sizes[2]
    weight_t = weight.view(groups, -1, weight.size(1)).transpose(1, 2).contiguous()
    bias = None if bias is None else bias.contiguous()
    out, best = x.new_empty(x.size(0), channels), x.new_empty(x.size(0), channels, dtype=torch.uint8)
    run("edge_conv", x, weight_t, bias, col, *sizes, out, best, x.new_empty(threads * scratch(sizes)))
    return out, best


def _differentiate(
    grad: Tensor, x: Tensor, weight: Tensor, col: Tensor, best: Tensor, sizes: tuple[int, ...], wants_x: bool
) -> tuple[Tensor | None, Tensor]:
    """Gradients of x and weight."""
    clouds, _size, groups, width, group = sizes[:5]
    grad_x = torch.empty_like(x) if wants_x else None
    grad_weight = x.new_empty(groups, width, 2 * group)
    work = x.new_empty(torch.get_num_threads() * scratch(sizes) + min(clouds, SHARES) * grad_weight.numel())
    run(
        "edge_conv_grad", grad.contiguous(), best, x, weight.contiguous(), col, *sizes, grad_x, grad_weight,
        work,
    )  # fmt: skip
    return grad_x, grad_weight.transpose(1, 2).flatten(0, 1)


def scratch(sizes: tuple[int, ...]) -> int:
    """Floats of a task: u and v of as many groups as fit the cache, for a node more than there are."""
    _clouds, size, groups, _width, group, _degree = sizes
    few = min(max(1, _CACHED // (size * 2 * group)), groups)
    return (size + 1) * 2 * few * group


def plain(
    x: Tensor, weight: Tensor, bias: Tensor | None, col: Tensor, best: Tensor, sizes: tuple[int, ...]
) -> Tensor:
    """What the compiled loops give, in torch's operators, from the neighbours that attain the maximum."""
    groups, width, group, degree = sizes[2:]
    parts = x.unflatten(1, (groups, width)), weight.unflatten(0, (groups, 2 * group))
    uv = torch.einsum("ngi,goi->ngo", *parts)
    uv = uv if bias is None else uv + bias.view(groups, -1)
    u, v = (part.flatten(1) for part in uv.chunk(2, dim=2))
    return u + v.gather(0, col.long().view(-1, degree).gather(1, best.long()))
