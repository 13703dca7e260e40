"""Normalisation, activation and residual in one step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mgic_geo.core import norm_native
from mgic_geo.core.twice import gradients
from mgic_geo.native import applies, kernels

__all__ = ["norm_act"]


def norm_act(x: Tensor, norm: nn.Module, act: nn.Module | None = None, residual: Tensor | None = None) -> Tensor:
    """``residual + act(norm(x))``.

    Batch normalisation in training on rows of channels or channels-last images, with a ReLU, a leaky one or none
    behind it, runs as one compiled step on the CPU, where there is one (:mod:`mgic_geo.native`): it reads ``x``
    twice, writes the result, and keeps nothing else for the gradient.

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
        native, threads = kernels(), torch.get_num_threads()
        assert native is not None
        rows, channels = x.shape
        mean, var, out = x.new_empty(channels), x.new_empty(channels), torch.empty_like(x)
        work = x.new_empty(-(-rows // 256) * 2 * channels)  # a name, as all here: pointers keep nothing alive
        native.mgic_norm_moments(
            x.data_ptr(), rows, channels, mean.data_ptr(), var.data_ptr(), work.data_ptr(), threads
        )
        scale = weight * torch.rsqrt(var + eps)
        native.mgic_norm_apply(
            x.data_ptr(), None if residual is None else residual.data_ptr(), rows, channels, mean.data_ptr(),
            scale.data_ptr(), bias.data_ptr(), slope, out.data_ptr(), threads,
        )  # fmt: skip
        ctx.save_for_backward(x, weight, bias, mean, var, scale)
        ctx.eps, ctx.slope, ctx.beside = eps, slope, residual is not None
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, var, scale = ctx.saved_tensors
        beside = grad if ctx.beside else None
        if torch.is_grad_enabled():
            plain = norm_native.plain_norm
            own = gradients(lambda *inputs: plain(*inputs, ctx.eps, ctx.slope), (x, weight, bias), grad)
            return (*own, beside, None, None)
        native, grad, grad_x = kernels(), grad.contiguous(), torch.empty_like(x)
        assert native is not None
        of_weight, of_bias, average, slopes = norm_native.sums(
            grad, x, mean, var, scale, bias, ctx.eps, ctx.slope
        )
        native.mgic_norm_grad(
            grad.data_ptr(), x.data_ptr(), *x.shape, mean.data_ptr(), scale.data_ptr(), bias.data_ptr(), ctx.slope,
            average.data_ptr(), slopes.data_ptr(), grad_x.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return grad_x, of_weight, of_bias, beside, None, None
