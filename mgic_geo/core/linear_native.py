"""Grouped maps of rows by compiled loops on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mgic_geo.core.twice import by_operators, gradients
from mgic_geo.native import applies, run

__all__ = ["fits", "grouped_rows"]

# Rows whose share of a weight's gradient is summed apart; the kernels know the same number.
_PIECE = 1024
# Below this many values calling costs more than it saves.
_LEAST = 2**14


def fits(rows: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> bool:
    """Whether :func:`grouped_rows` works here, and is the fastest way.

    Args:
        rows: (N, C_in).
        weight: (C_out, C_in / groups).
        bias: (C_out,) or None.
        groups: Number of groups.
    """
    return (
        groups > 1
        and applies(rows, weight, bias)  # first, as exported code may not ask for sizes
        and rows.numel() >= _LEAST
        and weight.size(0) % (8 * groups) == 0
        and weight.size(1) % 8 == 0
        and rows.size(1) == groups * weight.size(1)
        and (bias is None or bias.numel() == weight.size(0))
        and not torch.is_autocast_enabled("cpu")
    )


def grouped_rows(rows: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """(N, C_in) to (N, C_out) within contiguous groups; arguments as :func:`fits`."""
    return _Grouped.apply(rows, weight, bias, groups)


class _Grouped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.groups, ctx.bias = groups, bias is not None
        turned = weight.view(groups, -1, weight.size(1)).transpose(1, 2)
        return _map(x, turned, None if bias is None else bias.contiguous())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        blocks = weight.view(ctx.groups, -1, weight.size(1))
        of_bias = grad.sum(0) if ctx.bias else None
        if by_operators(grad):

            def plain(x: Tensor, weight: Tensor) -> Tensor:
                parts = x.unflatten(1, (ctx.groups, -1)), weight.view(ctx.groups, -1, weight.size(1))
                return torch.einsum("ngi,goi->ngo", *parts).flatten(1)

            return (*gradients(plain, (x, weight), grad), of_bias, None)
        grad = grad.contiguous()
        of_x = _map(grad, blocks, None) if ctx.needs_input_grad[0] else None
        of_weight = _of_weight(x, grad, ctx.groups) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, of_bias, None


def _map(x: Tensor, blocks: Tensor, bias: Tensor | None) -> Tensor:
    """X (N, C_in) times a matrix (in, out) a group."""
    groups, width_in, width_out = blocks.shape
    out = x.new_empty(x.size(0), groups * width_out)
    run("linear", x, blocks.contiguous(), bias, x.size(0), groups, width_in, width_out, out)
    return out


def _of_weight(x: Tensor, grad: Tensor, groups: int) -> Tensor:
    width_in, width_out = x.size(1) // groups, grad.size(1) // groups
    out = x.new_empty(groups, width_in, width_out)
    work = x.new_empty(-(-x.size(0) // _PIECE) * out.numel())
    run("linear_grad", x, grad, x.size(0), groups, width_in, width_out, out, work)
    return out.transpose(1, 2).flatten(0, 1)
