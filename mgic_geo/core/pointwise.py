"""Grouped pointwise (1×1) maps on a chosen channel axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["GroupedLinear", "grouped_linear"]


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
        if x.size(self.channel_dim) != self.in_channels:
            raise ValueError(
                f"expected {self.in_channels} channels in dimension {self.channel_dim}, "
                f"got shape {tuple(x.shape)}"
            )
        if self.channel_dim == -1:
            return grouped_linear(x, self.weight, self.bias, self.groups)
        if not 3 <= x.dim() <= 5:
            raise ValueError(
                f"channel_dim=1 takes (B, C, ...) of 3 to 5 dimensions, got shape {tuple(x.shape)}"
            )
        weight = self.weight.view(*self.weight.shape, *[1] * (x.dim() - 2))
        convolution = (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3]
        return convolution(x, weight, self.bias, groups=self.groups)

    def extra_repr(self) -> str:
        """Widths, groups and what departs from the defaults."""
        text = f"{self.in_channels}, {self.out_channels}, groups={self.groups}"
        text += ", bias=True" if self.bias is not None else ""
        return text + (", channel_dim=1" if self.channel_dim == 1 else "")


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
    out_channels = weight.size(0)
    rows = x.reshape(-1, in_channels)
    if rows.device.type == "cpu" and rows.dtype in (torch.float32, torch.bfloat16) and _many(rows):
        # oneDNN's 1×1 convolution reads rows as channels-last pixels: 2 to 4 times faster here, forward
        # and backward, than matrix products, grouped or not; a batch dimension helps its weight gradient.
        # Rows of zeros fill the last of 16 up. Compiled code keeps a number of rows that may vary, so it
        # leaves that out.
        count, batch = rows.size(0), 1 if torch.compiler.is_compiling() else 16
        filled = batch > 1 and count % batch
        rows = F.pad(rows, (0, 0, 0, -count % batch)) if filled else rows
        pixels = rows.view(batch, 1, -1, in_channels).permute(0, 3, 1, 2)
        out = F.conv2d(pixels, weight[:, :, None, None], bias, groups=groups).permute(0, 2, 3, 1)
        out = out.reshape(-1, out_channels)[:count] if filled else out
    elif groups == 1:
        out = F.linear(rows, weight, bias)
    else:
        blocks = weight.view(groups, out_channels // groups, -1).transpose(1, 2)
        out = torch.bmm(rows.view(-1, groups, in_channels // groups).transpose(0, 1), blocks).transpose(0, 1)
        out = out.reshape(-1, out_channels)
        out = out if bias is None else out + bias.to(out.dtype)  # float32 under autocast
    return out.reshape(*lead, out_channels)


def _many(rows: Tensor) -> bool:
    """Whether there are rows enough to make up for setting a convolution up; compiled code does not ask."""
    return torch.compiler.is_compiling() or rows.size(0) >= 768
