"""Grouped maps of rows by compiled loops on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mgic_geo.core.twice import gradients, must_use_torch
from mgic_geo.native import applies, run

__all__ = ["added_rows", "fits", "fits_added", "fits_widths", "grouped_rows", "paired", "unpaired"]

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
        and fits_widths(weight.size(1), weight.size(0) // groups, groups)
        and rows.size(1) == groups * weight.size(1)
        and (bias is None or bias.numel() == weight.size(0))
        and not torch.is_autocast_enabled("cpu")
    )


def fits_widths(width_in: int, width_out: int, groups: int) -> bool:
    """Whether the kernels map groups of these widths: multiples of 8, or narrow ones of 4, two together."""
    if not (width_in % 8 or width_out % 8):
        return True
    return not (width_in % 4 or width_out % 4 or groups % 2) and max(width_in, width_out) <= 16


def paired(blocks: Tensor) -> Tensor:
    """Matrices (groups, in, out) as they lie in memory; narrow ones two together, with zeros between."""
    groups, width_in, width_out = blocks.shape
    if not (width_in % 8 or width_out % 8):
        return blocks.contiguous()
    wide = blocks.new_zeros(groups // 2, 2, width_in, 2, width_out)
    wide.diagonal(0, 1, 3).copy_(blocks.unflatten(0, (-1, 2)).permute(0, 2, 3, 1))
    return wide.view(groups // 2, 2 * width_in, 2 * width_out)


def unpaired(blocks: Tensor, groups: int) -> Tensor:
    """What :func:`paired` was made of."""
    if blocks.size(0) == groups:
        return blocks
    wide = blocks.unflatten(2, (2, -1)).unflatten(1, (2, -1))
    return wide.diagonal(0, 1, 3).permute(0, 3, 1, 2).flatten(0, 1)


def grouped_rows(rows: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """(N, C_in) to (N, C_out) within contiguous groups; arguments as :func:`fits`."""
    return _GroupedFunction.apply(rows, weight, bias, groups)


def fits_added(rows: Tensor, weight: Tensor, start: Tensor | None) -> bool:
    """Whether :func:`added_rows` works here, and is the fastest way."""
    return (
        applies(rows, weight, start)
        and rows.dim() == 2
        and rows.numel() >= _LEAST
        and weight.size(0) % 8 == 0
        and weight.size(1) % 8 == 0
        and rows.size(1) == weight.size(1)
        and (start is None or start.shape in ((weight.size(0),), (rows.size(0), weight.size(0))))
        and not torch.is_autocast_enabled("cpu")
    )


def added_rows(rows: Tensor, weight: Tensor, start: Tensor | None) -> Tensor:
    """``start + rows @ weight.T`` in one pass.

    Args:
        rows: (N, C_in).
        weight: (C_out, C_in).
        start: (N, C_out), a bias (C_out,), or None.
    """
    return _AddedFunction.apply(rows, weight, start)


class _AddedFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, start: Tensor | None) -> Tensor:
        x, ctx.lead = x.contiguous(), 0 if start is None else start.dim()
        ctx.save_for_backward(x, weight)
        return _map(x, weight.t().unsqueeze(0), None if start is None else start.contiguous())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        grad_start = grad.sum(0) if ctx.lead == 1 else grad if ctx.lead else None
        if must_use_torch(grad):
            return (*gradients(lambda x, weight: x @ weight.t(), (x, weight), grad), grad_start)
        grad = grad.contiguous()
        grad_x = _map(grad, weight.unsqueeze(0), None) if ctx.needs_input_grad[0] else None
        grad_weight = _weight_grad(x, grad, 1) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, grad_start


class _GroupedFunction(torch.autograd.Function):
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
        grad_bias = grad.sum(0) if ctx.bias else None
        if must_use_torch(grad):

            def plain(x: Tensor, weight: Tensor) -> Tensor:
                parts = x.unflatten(1, (ctx.groups, -1)), weight.view(ctx.groups, -1, weight.size(1))
                return torch.einsum("ngi,goi->ngo", *parts).flatten(1)

            return (*gradients(plain, (x, weight), grad), grad_bias, None)
        grad = grad.contiguous()
        grad_x = _map(grad, blocks, None) if ctx.needs_input_grad[0] else None
        grad_weight = _weight_grad(x, grad, ctx.groups) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, grad_bias, None


def _map(x: Tensor, blocks: Tensor, start: Tensor | None) -> Tensor:
    """X (N, C_in) times a matrix (in, out) a group, on top of rows or a bias."""
    out, blocks = x.new_empty(x.size(0), blocks.size(0) * blocks.size(2)), paired(blocks)
    step = 0 if start is None or start.dim() == 1 else out.size(1)
    run("linear", x, blocks, start, step, x.size(0), *blocks.shape, out)
    return out


def _weight_grad(x: Tensor, grad: Tensor, groups: int) -> Tensor:
    width_in, width_out = x.size(1) // groups, grad.size(1) // groups
    together = 2 if width_in % 8 or width_out % 8 else 1
    out = x.new_empty(groups // together, together * width_in, together * width_out)
    work = x.new_empty(-(-x.size(0) // _PIECE) * out.numel())
    run("linear_grad", x, grad, x.size(0), *out.shape, out, work)
    return unpaired(out, groups).transpose(1, 2).flatten(0, 1)
