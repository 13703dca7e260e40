"""Grouped pointwise (1×1) maps on a chosen channel axis."""

from __future__ import annotations

import math

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from mgic_geo.core import linear_native
from mgic_geo.native import applies

__all__ = ["GroupedLinear", "added_linear", "grouped_linear"]

_IMAGES = 16  # of pixels, as which rows are convolved: with fewer the gradient of the weight takes longer


class GroupedLinear(nn.Module):
    r"""A pointwise linear map that mixes channels within contiguous groups only.

    With ``groups=1`` it is :class:`torch.nn.Linear`; with more, output group :math:`g` is a linear map of
    input group :math:`g`, so parameters and multiply-adds fall by the factor ``groups``. It is
    deliberately no subclass of ``nn.Linear`` or ``nn.Conv2d``: an initialisation loop over a model's
    convolutions must not overwrite what a layer has set (the transfer maps of section 4.3, say).

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        groups: Number of groups; must divide both widths.
        bias: Add a learned bias.
        channel_dim: Axis of the channels: -1 for (..., C), 1 for images (B, C, H, W).

    Shapes:
        - weight: (out_channels, in_channels / groups), the rows of group 0 first;
        - input: (..., in_channels), or (B, in_channels, ...) with ``channel_dim=1``;
        - output: the same with ``out_channels``.

    Raises:
        ValueError: On a width below 1, if ``groups`` does not divide both, or on an input of another shape.
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: int = 1, bias: bool = False, channel_dim: int = -1
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}; no width is inferred")
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups must divide both widths, got groups={groups}, in_channels={in_channels}, "
                f"out_channels={out_channels}; {math.gcd(in_channels, out_channels)} and its divisors do"
            )
        if channel_dim not in (-1, 1):
            raise ValueError(f"channel_dim must be -1 (last) or 1 (images), got {channel_dim}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.groups, self.channel_dim = groups, channel_dim
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw as ``nn.Linear`` does, with a group's width as fan-in."""
        bound = 1 / math.sqrt(self.weight.size(1))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_channels) to (..., out_channels), or dimension 1 with ``channel_dim=1``."""
        return _mapped(x, self.weight, self.bias, self.groups, self.channel_dim)

    def extra_repr(self) -> str:
        """Widths, groups and what departs from the defaults."""
        text = f"{self.in_channels}, {self.out_channels}, groups={self.groups}"
        text += ", bias=True" if self.bias is not None else ""
        return text + (", channel_dim=1" if self.channel_dim == 1 else "")


@torch.fx.wrap  # one node of a graph that torch.fx traces: which operators run depends on shapes
def _mapped(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int, channel_dim: int) -> Tensor:
    in_channels = weight.size(1) * groups
    if x.size(channel_dim) != in_channels:
        raise ValueError(
            f"expected {in_channels} channels in dimension {channel_dim}, got shape {tuple(x.shape)}"
        )
    if channel_dim == -1:
        return grouped_linear(x, weight, bias, groups)
    if not 3 <= x.dim() <= 5:
        raise ValueError(f"channel_dim=1 takes (B, C, ...) of 3 to 5 dimensions, got shape {tuple(x.shape)}")
    if groups > 1 and applies(x) and x.is_contiguous(memory_format=torch.channels_last):
        pixels = x.permute(0, 2, 3, 1)
        if linear_native.fits(pixels.flatten(0, 2), weight, bias, groups):
            return grouped_linear(pixels, weight, bias, groups).permute(0, 3, 1, 2)
    convolution = (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3]
    return convolution(x, weight.view(*weight.shape, *[1] * (x.dim() - 2)), bias, groups=groups)


def grouped_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """Apply a :class:`GroupedLinear` weight to channels-last features.

    Args:
        x: (..., C_in).
        weight: (C_out, C_in / groups).
        bias: (C_out,) or None.
        groups: Number of contiguous groups.

    Returns:
        (..., C_out).
    """
    *lead, in_channels = x.shape
    rows = x.reshape(-1, in_channels)
    if linear_native.fits(rows, weight, bias, groups):
        return linear_native.grouped_rows(rows, weight, bias, groups).view(*lead, weight.size(0))
    count, exporting = rows.size(0), torch.compiler.is_exporting()
    if not _prefers_convolution(rows):
        out = _products(rows, weight, bias, groups)
    elif exporting or count % _IMAGES == 0:  # exported code keeps a number of rows that may vary
        out = _convolution(rows, weight, bias, groups, 1 if exporting else _IMAGES)
    else:
        most, rest = rows.split([count - count % _IMAGES, count % _IMAGES])
        most = _convolution(most, weight, bias, groups, _IMAGES)
        out = torch.cat([most, _products(rest, weight, bias, groups)])
    return out.reshape(*lead, weight.size(0))


def added_linear(x: Tensor, weight: Tensor, start: Tensor | None) -> Tensor:
    """``start + x @ weight.T`` in one pass: a map of features side by side is a sum of maps of each.

    Args:
        x: (N, C_in).
        weight: (C_out, C_in).
        start: (N, C_out), a bias (C_out,), or None.

    Returns:
        (N, C_out).
    """
    if linear_native.fits_added(x, weight, start):
        return linear_native.added_rows(x, weight, start)
    return F.linear(x, weight) if start is None else torch.addmm(start, x, weight.T)


def _convolution(rows: Tensor, weight: Tensor, bias: Tensor | None, groups: int, images: int) -> Tensor:
    # oneDNN's 1×1 convolution reads rows as channels-last pixels: 2 to 4 times faster here, forward and
    # backward, than matrix products, grouped or not.
    pixels = rows.view(images, 1, -1, rows.size(1)).permute(0, 3, 1, 2)
    out = F.conv2d(pixels, weight[:, :, None, None], bias, groups=groups).permute(0, 2, 3, 1)
    return out.reshape(-1, weight.size(0))


def _products(rows: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    if groups == 1:
        return F.linear(rows, weight, bias)
    blocks = weight.view(groups, -1, weight.size(1)).transpose(1, 2)
    out = torch.bmm(rows.view(-1, groups, weight.size(1)).transpose(0, 1), blocks).transpose(0, 1)
    out = out.reshape(-1, weight.size(0))
    return out if bias is None else out + bias.to(out.dtype)  # float32 under autocast


def _prefers_convolution(rows: Tensor) -> bool:
    """Whether rows are on the CPU, and enough to make up for setting a convolution up; exports do not ask.

    Inductor makes as good products, and fails on pixels of a number that varies, in backward passes.
    """
    if rows.device.type != "cpu" or rows.dtype not in (torch.float32, torch.bfloat16):
        return False
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return rows.size(0) >= 768
