"""Normalisation, activation and residual in one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mgic_geo.core import norm_native
from mgic_geo.core.twice import gradients, must_use_torch
from mgic_geo.native import applies, run

__all__ = ["norm_act"]


def norm_act(
    x: Tensor,
    norm: nn.Module,
    act: nn.Module | None = None,
    residual: Tensor | None = None,
    *,
    act_after_add: bool = False,
) -> Tensor:
    """``residual + act(norm(x))``, or ``act(residual + norm(x))``.

    Batch normalisation in training on rows of channels or channels-last images, with a ReLU, a leaky one or
    none behind it, runs as one compiled step on the CPU, where there is one (:mod:`mgic_geo.native`): it
    reads ``x`` twice, writes the result, and keeps nothing else for the gradient.

    Args:
        x: What ``norm`` takes.
        norm: A normalisation.
        act: An activation.
        residual: Of the shape of ``x``.
        act_after_add: Activate behind the sum.
    """
    fast = _fast_path(x, norm, act, residual, act_after_add) if applies(x, residual) else None
    if fast is not None:
        return fast
    out = norm(x)
    if act_after_add and residual is not None:
        out, residual = residual + out, None
    if out is x and getattr(act, "inplace", False):  # without a normalisation: x is not ours to overwrite
        out = out.clone()
    out = out if act is None else act(out)
    return out if residual is None else residual + out


def _fast_path(
    x: Tensor, norm: nn.Module, act: nn.Module | None, residual: Tensor | None, act_after_add: bool
) -> Tensor | None:
    slope, rows = norm_native.slope_of(act), norm_native.rows_of(x)
    residual_rows = None if residual is None else norm_native.rows_of(residual)
    if (
        slope is None
        or rows is None
        or x.dim() != (4 if isinstance(norm, nn.BatchNorm2d) else 2)
        or (residual is not None and (residual_rows is None or residual.shape != x.shape))
        or not norm_native.fits(norm, *rows.shape)
    ):
        return None
    act_after_add = act_after_add and residual is not None and slope != 1
    out, mean, var = _NormActFunction.apply(
        rows, norm.weight, norm.bias, residual_rows, norm.eps, slope, act_after_add
    )
    norm_native.track(norm, mean, var, rows.size(0))
    return out if x.dim() == 2 else out.view(x.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)


class _NormActFunction(torch.autograd.Function):
    """The step on contiguous rows, activated ahead of the residual or behind it; gives the batch's mean and
    (biased) variance, too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        eps: float,
        slope: float,
        act_after_add: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, channels = x.shape
        mean, var, out = x.new_empty(channels), x.new_empty(channels), torch.empty_like(x)
        work = norm_native.work_for(x)
        run("norm_moments", x, rows, channels, mean, var, work)
        scale = weight * torch.rsqrt(var + eps)
        kernel = "norm_add" if act_after_add else "norm_apply"
        run(kernel, x, residual, rows, channels, mean, scale, bias, slope, out)
        ctx.save_for_backward(x, weight, bias, mean, var, scale, out if act_after_add else None)
        ctx.eps, ctx.slope, ctx.has_residual = eps, slope, residual is not None
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, bias, mean, var, scale, out = ctx.saved_tensors
        slope, eps = ctx.slope, ctx.eps
        if must_use_torch(grad):
            if out is not None:
                grad, slope = norm_native.plain_grad(grad, out, slope), 1.0

            def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
                return norm_native.plain_norm(x, weight, bias, eps, slope)

            own = gradients(plain, (x, weight, bias), grad)
            return (*own, grad if ctx.has_residual else None, None, None, None)
        grad_residual = grad if ctx.has_residual else None
        grad, grad_x = grad.contiguous(), torch.empty_like(x)
        if out is None:
            found = norm_native.sums(grad, x, mean, var, scale, bias, eps, slope)
        else:
            grad_residual, *found = norm_native.add_sums(grad, x, out, mean, var, eps, slope)
            grad, slope = grad_residual, 1.0
        grad_weight, grad_bias, average, slopes = found
        run("norm_grad", grad, x, *x.shape, mean, scale, bias, slope, average, slopes, grad_x)
        return grad_x, grad_weight, grad_bias, grad_residual, None, None, None
