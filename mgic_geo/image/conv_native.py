"""Convolution, normalisation, residual and activation of an image block as one compiled step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgic_geo.core import norm_native
from mgic_geo.core.norm_act import norm_act
from mgic_geo.core.observed import observed
from mgic_geo.core.twice import gradients, must_use_torch
from mgic_geo.native import applies, has_avx512, run

__all__ = ["convolved", "fits_turned"]

# Widths of groups for which the loops are the faster way, and parts of a batch that may run at once.
_GROUPS, _PARTS = (8, 16), 16


def convolved(
    x: Tensor, conv: nn.Module, norm: nn.Module, act: nn.Module | None = None, residual: Tensor | None = None
) -> Tensor:
    """``act(residual + norm(conv(x)))``.

    In training on a CPU with vectors of 16 floats, 3×3 convolutions in groups of 8 or 16 channels, of
    channels-last images, run by compiled loops (:mod:`mgic_geo.native`): normalised while an image is in the
    cache, its gradient never stored. Only the normalisation and what follows does so for others.

    Args:
        x: (B, C_in, H, W).
        conv: A convolution.
        norm: A normalisation.
        act: An activation.
        residual: (B, C_out, H', W').
    """
    slope = norm_native.slope_of(act)
    if slope is None or not _fits(x, conv, norm, residual) or not (_in_last(x) and _in_last(residual)):
        return norm_act(conv(x), norm, act, residual, act_after_add=True)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    out, mean, var = _ConvolvedFunction.apply(
        x, conv.weight, norm.weight, norm.bias, residual, conv.groups, norm.eps, slope
    )
    norm_native.track(norm, mean, var, x.numel() // x.size(1))
    return out


def fits_turned(x: Tensor, conv: nn.Module, norm: nn.Module, act: nn.Module) -> bool:
    """Whether loops would run if images in channels first were turned into channels last."""
    turned = norm_native.slope_of(act) is not None and _fits(x, conv, norm)
    return turned and x.is_contiguous() and not _in_last(x)


def _in_last(x: Tensor | None) -> bool:
    return x is None or x.is_contiguous(memory_format=torch.channels_last)


def _fits(x: Tensor, conv: nn.Module, norm: nn.Module, residual: Tensor | None = None) -> bool:
    """Whether the loops are the fast way, for images in channels last."""
    return (
        type(conv) is nn.Conv2d
        and type(norm) is nn.BatchNorm2d
        and conv.in_channels == conv.out_channels
        and conv.in_channels // conv.groups in _GROUPS
        and conv.kernel_size == (3, 3)
        and conv.stride == conv.padding == conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.bias is None
        and applies(x, conv.weight, residual)  # ahead of sizes: exported code has none
        and has_avx512()
        and x.dim() == 4
        and x.size(1) == conv.in_channels
        and torch.get_num_threads() <= min(x.size(0), _PARTS)
        and (residual is None or residual.shape == x.shape)
        and norm_native.fits(norm, x.numel() // x.size(1), x.size(1))
        and not observed(conv)
    )


class _ConvolvedFunction(torch.autograd.Function):
    """The step; gives the mean and (biased) variance behind the convolution, too."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kernels: Tensor,
        weight: Tensor,
        bias: Tensor,
        residual: Tensor | None,
        groups: int,
        eps: float,
        slope: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        pixels, own = _last(x), _last(kernels).contiguous()
        images, channels = x.size(0), x.size(1)
        z, out = torch.empty_like(pixels), torch.empty_like(x)
        mean, var = x.new_empty(channels), x.new_empty(channels)
        work = x.new_empty(own.numel() + images * 2 * channels)
        run("conv_moments", pixels, own, *pixels.shape, channels // groups, z, mean, var, work)
        scale, rows = weight * torch.rsqrt(var + eps), z.numel() // channels
        act_after_add = residual is not None and slope != 1
        residual_pixels = None if residual is None else _last(residual)
        kernel = "norm_add" if act_after_add else "norm_apply"
        run(kernel, z, residual_pixels, rows, channels, mean, scale, bias, slope, _last(out))
        ctx.save_for_backward(x, kernels, z, weight, bias, mean, var, scale, out if act_after_add else None)
        ctx.groups, ctx.eps, ctx.slope, ctx.has_residual = groups, eps, slope, residual is not None
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, kernels, z, weight, bias, mean, var, scale, out = ctx.saved_tensors
        slope, eps, groups, channels = ctx.slope, ctx.eps, ctx.groups, x.size(1)
        if must_use_torch(grad):
            if out is not None:
                grad, slope = norm_native.plain_grad(grad, out, slope), 1.0

            def plain(x: Tensor, kernels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
                change = F.conv2d(x, kernels, None, 1, 1, 1, groups)
                return norm_native.plain_norm(change, weight, bias, eps, slope)

            own = gradients(plain, (x, kernels, weight, bias), grad)
            return (*own, grad if ctx.has_residual else None, None, None, None)
        grad_residual, rows = grad if ctx.has_residual else None, z.view(-1, channels)
        g = _last(grad).contiguous().view(-1, channels)
        if out is None:
            found = norm_native.sums(g, rows, mean, var, scale, bias, eps, slope)
        else:
            g, *found = norm_native.add_sums(g, rows, _last(out).view(-1, channels), mean, var, eps, slope)
            slope, grad_residual = 1.0, g.view(z.shape).permute(0, 3, 1, 2)
        grad_weight, grad_bias, average, slopes = found
        pixels, own = _last(x), _last(kernels).contiguous()
        grad_x = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        grad_kernels, image = torch.empty_like(own), z.numel() // x.size(0)
        work = x.new_empty((1 + _PARTS) * own.numel() + torch.get_num_threads() * image)
        run(
            "conv_norm_grad", g, z, pixels, own, *pixels.shape, channels // groups, mean, scale, bias, slope,
            average, slopes, None if grad_x is None else _last(grad_x), grad_kernels, work,
        )  # fmt: skip
        grad_kernels = grad_kernels.permute(0, 3, 1, 2)
        return grad_x, grad_kernels, grad_weight, grad_bias, grad_residual, None, None, None


def _last(x: Tensor) -> Tensor:
    """(B, C, H, W) as (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)
