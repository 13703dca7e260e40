"""The correction of a level, one line of Algorithm 1, and its fast form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mgic_geo.core import linear_native, norm_native
from mgic_geo.core.norm_act import norm_act
from mgic_geo.core.observed import observed
from mgic_geo.core.pointwise import GroupedLinear, grouped_linear
from mgic_geo.core.transfer import Prolongation
from mgic_geo.core.twice import gradients, must_use_torch
from mgic_geo.native import applies, run

__all__ = ["corrected"]

# What the kernels work off at once, and sum up apart.
_STRIP, _PIECE, _FEW = 128, 1024, 32


def corrected(
    fine: Tensor, coarse: Tensor, restricted: Tensor, prolong: nn.Module, norm: nn.Module
) -> Tensor:
    r""":math:`x^{(j)} + N_j(P_j(x^{(j+1)} - R_j x^{(j)}))`.

    In training on a CPU one compiled step for each direction, where there is one (:mod:`mgic_geo.native`):
    neither the difference nor a gradient of the prolonged correction is ever stored.

    Args:
        fine: Features of level j, before its correction.
        coarse: Those of level j + 1, behind its block.
        restricted: Those of level j + 1, as the restriction gave them.
        prolong: P.
        norm: N.
    """
    fast = _fast_path(fine, coarse, restricted, prolong, norm)
    return norm_act(prolong(coarse - restricted), norm, residual=fine) if fast is None else fast


def _fast_path(
    fine: Tensor, coarse: Tensor, restricted: Tensor, prolong: nn.Module, norm: nn.Module
) -> Tensor | None:
    tensors = fine, coarse, restricted
    if type(prolong) is not Prolongation or not applies(*tensors):
        return None
    rows = [norm_native.rows_of(x) for x in tensors]
    if any(x is None for x in rows):
        return None
    linear = prolong.map
    if (
        type(linear) is not GroupedLinear
        or linear.bias is not None
        or (fine.dim() == 4) != (linear.channel_dim == 1)
        or fine.dim() != (4 if isinstance(norm, nn.BatchNorm2d) else 2)
        or not linear_native.fits_widths(
            linear.in_channels // linear.groups, linear.out_channels // linear.groups, linear.groups
        )
        or coarse.shape != restricted.shape
        or coarse.shape != (fine.size(0), linear.in_channels, *fine.shape[2:])
        or fine.size(1) != linear.out_channels
        or linear.weight.shape != (linear.out_channels, linear.in_channels // linear.groups)
        or observed(prolong, linear)
        or not norm_native.fits(norm, *rows[0].shape)  # type: ignore[union-attr]
        or not applies(linear.weight)
    ):
        return None
    out, mean, var = _CorrectedFunction.apply(
        *rows, linear.weight, norm.weight, norm.bias, linear.groups, norm.eps
    )
    norm_native.track(norm, mean, var, out.size(0))
    return out if fine.dim() == 2 else out.view(fine.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)


class _CorrectedFunction(torch.autograd.Function):
    """The step on contiguous rows; gives mean and (biased) variance of the prolonged change, too."""

    @staticmethod
    def forward(
        ctx: Any,
        fine: Tensor,
        coarse: Tensor,
        restricted: Tensor,
        prolong: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows, channels = fine.shape
        turned = linear_native.paired(prolong.view(groups, -1, prolong.size(1)).transpose(1, 2))
        sizes = rows, *turned.shape
        out, mean, var = torch.empty_like(fine), fine.new_empty(channels), fine.new_empty(channels)
        center, work = fine.new_empty(coarse.size(1)), _work(fine, coarse)
        run("correct_moments", coarse, restricted, turned, *sizes, mean, var, center, work)
        scale = weight * torch.rsqrt(var + eps)
        run("correct_apply", coarse, restricted, turned, fine, *sizes, mean, scale, bias, out, work)
        ctx.save_for_backward(coarse, restricted, prolong, turned, weight, bias, center, var, scale)
        ctx.sizes, ctx.groups, ctx.eps = sizes, groups, eps
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        coarse, restricted, prolong, turned, weight, bias, center, var, scale = ctx.saved_tensors
        rows, groups, width_in, width_out = ctx.sizes
        if must_use_torch(grad):

            def plain(
                coarse: Tensor, restricted: Tensor, prolong: Tensor, weight: Tensor, bias: Tensor
            ) -> Tensor:
                change = grouped_linear(coarse - restricted, prolong, None, ctx.groups)
                return norm_native.plain_norm(change, weight, bias, ctx.eps, 1.0)

            inputs = coarse, restricted, prolong, weight, bias
            return (grad, *gradients(plain, inputs, grad), None, None)
        grad, grad_bias = grad.contiguous(), torch.empty_like(var)
        by, square = grad.new_empty(groups, width_in, width_out), grad.new_empty(groups, width_in, width_in)
        own, pieces = torch.get_num_threads() * _FEW * coarse.size(1), -(-rows // _PIECE)
        work = grad.new_empty(own + pieces * (grad.size(1) + by.numel() + square.numel()))
        features = coarse, restricted, center
        run("correct_sums", grad, *features, *ctx.sizes, grad_bias, by, square, work)

        # N(P d) and its gradient in matrices of a group: p (out, in), scales (out, 1).
        p, by = turned.transpose(1, 2).contiguous(), by.transpose(1, 2)
        rstd, inv_std_scale = torch.rsqrt(var + ctx.eps), scale.view(groups, width_out, 1)
        grad_scale = (p * by).sum(2).flatten()  # of the sum of gradient times (P d - mean)
        slopes = (grad_scale * rstd.square() / rows).view(groups, width_out, 1)
        grad_prolong = inv_std_scale * (by - slopes * (p @ square))
        back = inv_std_scale * p
        spread = -(turned @ (slopes * back))
        shift = -(turned @ (inv_std_scale * grad_bias.view(groups, width_out, 1) / rows)).flatten()

        grad_coarse, grad_restricted = torch.empty_like(coarse), torch.empty_like(coarse)
        run(
            "correct_grad", grad, *features, back, spread, shift, *ctx.sizes, grad_coarse, grad_restricted,
            work,
        )  # fmt: skip
        grad_prolong = linear_native.unpaired(grad_prolong.transpose(1, 2), ctx.groups)
        grad_prolong, grad_weight = grad_prolong.transpose(1, 2).flatten(0, 1), grad_scale * rstd
        return grad, grad_coarse, grad_restricted, grad_prolong, grad_weight, grad_bias, None, None


def _work(fine: Tensor, coarse: Tensor) -> Tensor:
    """A strip of both widths for each thread, and sums of each strip: two a channel, one a coarse channel."""
    strips = torch.get_num_threads() * _STRIP * (coarse.size(1) + fine.size(1))
    return fine.new_empty(strips + -(-fine.size(0) // _STRIP) * (coarse.size(1) + 2 * fine.size(1)))
