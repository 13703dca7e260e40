"""Batch normalisation folded into the linear map ahead of it, for inference."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mgic_geo.core.pointwise import GroupedLinear

__all__ = ["affine_of", "fold", "in_place"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_MAPS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, GroupedLinear)


def affine_of(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Scale and shift (C,), float64, that a batch normalisation amounts to in evaluation.

    Returns:
        None for any other module, a subclass included, and for one without running statistics, which
        normalises by the batch in evaluation, too.
    """
    if type(norm) not in _NORMS:
        return None
    assert isinstance(norm, _NORMS)
    mean, var = norm.running_mean, norm.running_var
    if mean is None or var is None:
        return None
    scale = torch.rsqrt(var.detach().double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean.detach().double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


@torch.no_grad()
def fold(layer: nn.Module, norm: nn.Module) -> bool:
    """Give ``layer`` the weights with which it does what it and then ``norm`` did in evaluation.

    Computed in float64, so that what is rounded is the new weight only.

    Args:
        layer: A linear map or convolution; changed in place.
        norm: The batch normalisation that alone reads its output; left as it is.

    Returns:
        Whether that could be done: not for other modules, subclasses or parametrised weights.
    """
    affine = affine_of(norm)
    if affine is None or type(layer) not in _MAPS:
        return False
    assert isinstance(layer, _MAPS)
    scale, shift = affine
    weight, bias = layer.weight, layer.bias
    if weight.size(0) != scale.numel():
        return False
    scaled = weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))
    moved = shift if bias is None else bias.double() * scale + shift
    layer.weight = nn.Parameter(scaled.to(weight.dtype).contiguous(memory_format=_format(weight)))
    layer.bias = nn.Parameter(moved.to(weight.dtype))
    return True


def in_place(act: nn.Module) -> nn.Module:
    """A copy of an activation that overwrites its input, where it can."""
    act = copy.copy(act)
    if getattr(act, "inplace", None) is False:
        act.inplace = True  # type: ignore[assignment]
    return act


def _format(weight: Tensor) -> torch.memory_format:
    last = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
