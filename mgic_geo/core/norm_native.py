"""What all compiled steps with a batch normalisation share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgic_geo.core.observed import observed
from mgic_geo.native import applies, run

__all__ = [
    "add_sums",
    "fits",
    "large",
    "plain_grad",
    "plain_norm",
    "rows_of",
    "slope_of",
    "sums",
    "track",
    "work_for",
]

# Rows are summed up in pieces of this many; the kernels know the same number.
_PIECE = 256
# Below this many values calling costs more than it saves.
_LEAST = 2**15


def slope_of(act: nn.Module | None) -> float | None:
    """The slope below zero of no activation, a ReLU or a leaky one; None of any other."""
    if act is None:
        return 1.0
    if not isinstance(act, nn.Module) or observed(act):  # some pass functions
        return None
    if type(act) is nn.Identity:
        return 1.0
    if type(act) is nn.ReLU:
        return 0.0
    return act.negative_slope if type(act) is nn.LeakyReLU and act.negative_slope >= 0 else None


def rows_of(x: Tensor) -> Tensor | None:
    """Rows (N, C), or channels-last images (B, C, H, W) as rows of pixels, uncopied; None of all else."""
    if x.dim() == 2 and x.is_contiguous():
        return x
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).reshape(-1, x.size(1))
    return None


def large(rows: int, channels: int) -> bool:
    """Whether there are so many values that calling costs less than it saves."""
    return rows * channels >= _LEAST


def fits(norm: nn.Module, rows: int, channels: int, *, small: bool = False) -> bool:
    """Whether a step on (rows, channels) may normalise by compiled loops: batch statistics in training.

    ``small``: even if there are few values, because they are part of a larger step.
    """
    return (
        type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d)
        and norm.training
        and norm.affine is True
        and norm.bias is not None
        and applies(norm.weight, norm.bias)  # type: ignore[arg-type]  # ahead of sizes: exported code has none
        and norm.weight.numel() == norm.bias.numel() == channels  # type: ignore[operator]
        and channels % 16 == 0
        and rows > 1
        and (small or large(rows, channels))
        and not observed(norm)
        and not torch.is_autocast_enabled("cpu")
        and norm.weight.is_contiguous()  # type: ignore[operator]
        and norm.bias.is_contiguous()  # type: ignore[operator]
    )


@torch.no_grad()
def track(norm: nn.Module, mean: Tensor, var: Tensor, rows: int) -> None:
    """Advance the running statistics by a batch's mean and biased variance, as ``norm`` would."""
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    if not norm.track_running_stats or norm.running_mean is None or norm.running_var is None:
        return
    momentum = norm.momentum or 0.0
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_((var * (rows / (rows - 1))).to(norm.running_var.dtype), momentum)


def sums(
    grad: Tensor, z: Tensor, mean: Tensor, var: Tensor, scale: Tensor, bias: Tensor, eps: float, slope: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of weight and bias, and what the gradient of z needs of the sums behind them.

    Args:
        grad: (N, C) of what comes behind the activation.
        z: (N, C) before the normalisation.
        mean: (C,) of z.
        var: (C,) of z, biased.
        scale: (C,) weight / sqrt(var + eps).
        bias: (C,) of the normalisation.
        eps: Of the normalisation.
        slope: Of the activation.
    """
    rows, channels = z.shape
    grad_bias, grad_scale = torch.empty_like(mean), torch.empty_like(mean)
    work = work_for(z)
    run("norm_sums", grad, z, rows, channels, mean, scale, bias, slope, grad_bias, grad_scale, work)
    return _shares(grad_scale, grad_bias, var, eps, rows)


def add_sums(
    grad: Tensor, z: Tensor, out: Tensor, mean: Tensor, var: Tensor, eps: float, slope: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradient ahead of an activation that came behind a sum, then what :func:`sums` gives.

    Args:
        grad: (N, C) of what comes behind the activation.
        z: (N, C) before the normalisation.
        out: (N, C) behind the activation.
        mean: (C,) of z.
        var: (C,) of z, biased.
        eps: Of the normalisation.
        slope: Of the activation.
    """
    rows, channels = z.shape
    grad_bias, grad_scale, hidden = torch.empty_like(mean), torch.empty_like(mean), torch.empty_like(grad)
    sums = grad_bias, grad_scale, work_for(z)
    run("norm_add_sums", grad, z, out, rows, channels, mean, slope, hidden, *sums)
    return hidden, *_shares(grad_scale, grad_bias, var, eps, rows)


def _shares(
    grad_scale: Tensor, grad_bias: Tensor, var: Tensor, eps: float, rows: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rstd = torch.rsqrt(var + eps)
    return grad_scale * rstd, grad_bias, grad_bias / rows, grad_scale * rstd.square() / rows


def work_for(z: Tensor) -> Tensor:
    """What the sums over rows (N, C) need to work with."""
    return z.new_empty(-(-z.size(0) // _PIECE) * 2 * z.size(1))


def plain_norm(z: Tensor, weight: Tensor, bias: Tensor, eps: float, slope: float) -> Tensor:
    """The normalisation and activation in torch's operators."""
    out = F.batch_norm(z, None, None, weight, bias, True, 0.0, eps)
    return out if slope == 1 else F.leaky_relu(out, slope)


def plain_grad(grad: Tensor, out: Tensor, slope: float) -> Tensor:
    """The gradient ahead of an activation that gave ``out``, in torch's operators."""
    return torch.where(out > 0, grad, slope * grad)
