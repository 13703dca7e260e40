"""The convolution of all image blocks, its groups and its start in one place."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from mgic_geo.core import MGICBlock

__all__ = ["Layer", "activation", "conv2d", "conv_norm_act", "initialize"]

Layer = Callable[..., nn.Module]


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution that keeps the image's size, up to its stride.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        kernel_size: Odd size of the kernel.
        stride: Step between output pixels.
        groups: Number of contiguous channel groups; must divide both widths.
        dilation: Spacing of the kernel's points.
        bias: Add a learned bias.

    Raises:
        ValueError: If ``groups`` does not divide both widths, or on an even kernel.
    """
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ValueError(
            f"groups must divide both widths, got groups={groups}, in_channels={in_channels}, "
            f"out_channels={out_channels}; {math.gcd(in_channels, out_channels)} and its divisors do"
        )
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, so that the image keeps its size, got {kernel_size}")
    padding = (kernel_size - 1) // 2 * dilation
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    norm_layer: Layer = nn.BatchNorm2d,
    act_layer: Layer | None = nn.ReLU,
) -> nn.Sequential:
    """:func:`conv2d`, ``norm_layer(width)`` and, unless None, :func:`activation` of ``act_layer``."""
    convolution = conv2d(in_channels, out_channels, kernel_size, stride, groups, dilation)
    act = [] if act_layer is None else [activation(act_layer)]
    return nn.Sequential(convolution, norm_layer(out_channels), *act)


def activation(layer: Layer) -> nn.Module:
    """``layer(inplace=True)``, or ``layer()`` where it takes no ``inplace``."""
    try:
        return layer(inplace=True)
    except TypeError:  # signatures do not tell: that of nn.Tanh has any keyword
        return layer()


def initialize(model: nn.Module) -> None:
    """Start convolutions, normalisations and linear layers of an image network; what a cycle sets stays.

    Kaiming's normal distribution over the fan-out *of a group*. Counting all C output channels, as
    ``nn.init`` does, depth-wise kernels would start with outputs of variance 2 / C, no longer large against
    the epsilon of MobileNet's normalisation.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm) and module.affine:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, MGICBlock):
            module.scale_corrections()
