"""The largest of a node's edges u_i + v_j on a GPU, one kernel each way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mgic_geo.core.twice import gradients, needs_double_backward
from mgic_geo.graph.gpu.graph import chosen, graph_tensors, layout, parts, rank_type
from mgic_geo.graph.gpu.launch import launch
from mgic_geo.graph.neighbors import Neighbors

__all__ = ["edge_max"]


def edge_max(uv: Tensor, neighbors: Neighbors, groups: int) -> Tensor:
    r""":math:`u_i + \max_{j \in \mathcal{N}(i)} v_j`, 0 for a node without neighbours.

    Args:
        uv: (N, 2C) of each of ``groups`` groups first u, then v, on a GPU.
        neighbors: The graph of the N nodes, any degrees.
        groups: Number of channel groups.

    Returns:
        (N, C).
    """
    gradient = torch.is_grad_enabled() and uv.requires_grad
    small = rank_type(neighbors) == torch.uint8
    return _edge_max(uv, *graph_tensors(neighbors, gradient), groups, small)[0]


@torch.library.custom_op("mgic_geo::edge_max", mutates_args=())
def _edge_max(
    uv: Tensor,
    rowptr: Tensor,
    col: Tensor,
    transposed_rowptr: Tensor,
    transposed_col: Tensor,
    ranks: Tensor,
    groups: int,
    small: bool,
) -> tuple[Tensor, Tensor]:
    """Values, and ranks of the neighbours that attain them."""
    uv = uv.contiguous()
    out, best = _empty(uv, small)
    u, v = parts(uv, groups)
    nodes, channels = out.shape
    launch(
        "gather_max", uv, (nodes, channels), u, v, rowptr, col, out, best, out, out, nodes, channels,
        *layout(uv, groups), 1, HAS_U=True, BEST="rank", MOMENTS=False,
    )  # fmt: skip
    return out, best


@_edge_max.register_fake
def _(
    uv: Tensor, rowptr: Tensor, col: Tensor, transposed_rowptr: Tensor, transposed_col: Tensor, ranks: Tensor,
    groups: int, small: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return _empty(uv, small)


def _empty(uv: Tensor, small: bool) -> tuple[Tensor, Tensor]:
    out = uv.new_empty(uv.size(0), uv.size(1) // 2)
    return out, out.new_empty(out.shape, dtype=torch.uint8 if small else torch.int32)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    uv, *graph, ctx.groups, _small = inputs
    ctx.shape = uv.shape
    ctx.save_for_backward(*graph, output[1])  # not uv, in which the step is linear
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    rowptr, col, transposed_rowptr, transposed_col, ranks, best = ctx.saved_tensors
    if needs_double_backward(grad):

        def plain(uv: Tensor) -> Tensor:
            u, v = (part.flatten(1) for part in parts(uv, ctx.groups))
            some = (rowptr.diff() > 0).unsqueeze(1)
            return torch.where(some, u + v.gather(0, chosen(rowptr, col, best)), 0)

        anywhere = torch.zeros(ctx.shape, dtype=grad.dtype, device=grad.device, requires_grad=True)
        return (*gradients(plain, (anywhere,), grad), *[None] * 7)
    graph = transposed_rowptr, transposed_col, ranks
    return _edge_max_grad(grad, best, rowptr, *graph, ctx.groups), *[None] * 7


_edge_max.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("mgic_geo::edge_max_grad", mutates_args=())
def _edge_max_grad(
    grad: Tensor,
    best: Tensor,
    rowptr: Tensor,
    transposed_rowptr: Tensor,
    transposed_col: Tensor,
    ranks: Tensor,
    groups: int,
) -> Tensor:
    """(N, 2C) the gradient of u and v; that of a source is summed over its targets in order."""
    grad, (nodes, channels) = grad.contiguous(), grad.shape
    out = grad.new_empty(nodes, 2 * channels)
    grad_u, grad_v = parts(out, groups)
    launch(
        "edge_gradients", grad, (nodes, channels), grad, best, *[out] * 7, rowptr,
        transposed_rowptr, transposed_col, ranks, grad_u, grad_v,
        nodes, channels, *layout(out, groups), 1, sides=2, eps=0.0, MOMENTS=False,
    )  # fmt: skip
    return out


@_edge_max_grad.register_fake
def _(
    grad: Tensor, best: Tensor, rowptr: Tensor, transposed_rowptr: Tensor, transposed_col: Tensor,
    ranks: Tensor, groups: int,
) -> Tensor:  # fmt: skip
    return grad.new_empty(grad.size(0), 2 * grad.size(1))
