"""Normalisation, activation and residual in one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mgic_geo.core import norm_native
from mgic_geo.core.twice import by_operators, gradients
from mgic_geo.native import applies, run

__all__ = ["norm_act"]


def norm_act(
    x: Tensor, norm: nn.Module, act: nn.Module | None = None, residual: Tensor | None = None
) -> Tensor:
    """``residual + act(norm(x))``.

    Batch normalisation in training on rows of channels or channels-last images, with a ReLU, a leaky one or
    none behind it, runs as one compiled step on the CPU, where there is one (:mod:`mgic_geo.native`): it
    reads ``x`` twice, writes the result, and keeps nothing else for the gradient.

    Args:
        x: What ``norm`` takes.
        norm: A normalisation.
        act: An activation.
        residual: Of the shape of ``x``, added last.
    """
    slope, rows = norm_native.slope_of(act), norm_native.rows_of(x)
    beside = None if residual is None else norm_native.rows_of(residual)
    if (
        slope is not None
        and rows is not None
        and x.dim() == (4 if isinstance(norm, nn.BatchNorm2d) else 2)
        and (residual is None or (beside is not None and residual.shape == x.shape))
        and norm_native.fits(norm, *rows.shape)
        and applies(x, residual)
    ):
        out, mean, var = _NormAct.apply(rows, norm.weight, norm.bias, beside, norm.eps, slope)
        norm_native.track(norm, mean, var, rows.size(0))
        return out if x.dim() == 2 else out.view(x.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
    out = norm(x) if act is None else act(norm(x))
    return out if residual is None else residual + out


class _NormAct(torch.autograd.Function):
    """The step on contiguous rows; gives the batch's mean and (biased) variance, too."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor | None, eps: float, slope: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, channels = x.shape
        mean, var, out = x.new_empty(channels), x.new_empty(channels), torch.empty_like(x)
        work = norm_native.work_for(x)
        run("norm_moments", x, rows, channels, mean, var, work)
        scale = weight * torch.rsqrt(var + eps)
        run("norm_apply", x, residual, rows, channels, mean, scale, bias, slope, out)
        ctx.save_for_backward(x, weight, bias, mean, var, scale)
        ctx.eps, ctx.slope, ctx.beside = eps, slope, residual is not None
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, bias, mean, var, scale = ctx.saved_tensors
        beside = grad if ctx.beside else None
        if by_operators(grad):

            def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
                return norm_native.plain_norm(x, weight, bias, ctx.eps, ctx.slope)

            own = gradients(plain, (x, weight, bias), grad)
            return (*own, beside, None, None)
        grad, grad_x = grad.contiguous(), torch.empty_like(x)
        of_weight, of_bias, average, slopes = norm_native.sums(
            grad, x, mean, var, scale, bias, ctx.eps, ctx.slope
        )
        run("norm_grad", grad, x, *x.shape, mean, scale, bias, ctx.slope, average, slopes, grad_x)
        return grad_x, of_weight, of_bias, beside, None, None
