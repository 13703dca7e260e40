"""Image blocks whose channels are coupled by the multigrid cycle (Algorithm 1)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mgic_geo.core import ChannelHierarchy, GroupedLinear, MGICBlock
from mgic_geo.image.blocks import BasicBlock2d, Bottleneck2d, InvertedResidual2d, squeeze_width
from mgic_geo.image.conv import Layer, conv_norm_act
from mgic_geo.image.conv_native import fits_turned

__all__ = ["MGICBasicBlock2d", "MGICBottleneck2d", "MGICInvertedResidual2d", "depthwise_shortcut"]

_NOTHING = {
    "groups": 1, "base_width": 64, "cardinality": 1, "reduce_first": 1, "first_dilation": None,
    "attn_layer": None, "aa_layer": None, "drop_block": None, "drop_path": None,
}  # fmt: skip
"""Arguments of the blocks of torchvision and timm that ask for nothing with these values."""


def depthwise_shortcut(
    in_channels: int,
    out_channels: int,
    stride: int = 1,
    norm_layer: Layer = nn.BatchNorm2d,
    act_layer: Layer | None = nn.ReLU,
) -> nn.Module:
    """Bring an image to another width or resolution cheaply (section 4.3, "Changing resolution blocks").

    A 3×3 convolution in as many groups as divide both widths, depth-wise where the narrower divides the
    wider; then normalisation and activation. The identity where nothing changes.
    """
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    groups = math.gcd(in_channels, out_channels)
    return conv_norm_act(in_channels, out_channels, 3, stride, groups, 1, norm_layer, act_layer)


class _MGICResidual2d(nn.Module):
    """What MGICBasicBlock2d and MGICBottleneck2d share; ``level`` is the block of each level."""

    level: type[BasicBlock2d] | type[Bottleneck2d]
    expansion: int

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm_layer: Layer | None = None,
        act_layer: Layer = nn.ReLU,
        *,
        group_size: int = 32,
        coarse_size: int = 64,
        min_levels: int = 0,
        transfer_init: str = "random",
        correction_scale: float = 0.0,
        preactivation: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **network: Any,
    ) -> None:
        super().__init__()
        _refuse(groups=groups, base_width=base_width, **network)
        self.in_channels, self.out_channels, self.stride = in_channels, planes * self.expansion, stride
        self.hierarchy = ChannelHierarchy(planes, group_size, coarse_size, min_levels)
        norm, wide = norm_layer or nn.BatchNorm2d, self.expansion

        def block(width: int, groups: int) -> nn.Module:
            return self.level(wide * width, width, 1, None, groups, dilation, norm, act_layer, preactivation)

        self.shortcut = depthwise_shortcut(
            in_channels, self.out_channels, stride, norm, None if preactivation else act_layer
        )
        self.cycle = MGICBlock(
            self.hierarchy,
            block,
            pointwise=lambda i, o, g: GroupedLinear(wide * i, wide * o, g, channel_dim=1),
            norm=lambda width: norm(wide * width),
            transfer_init=transfer_init,
            correction_scale=correction_scale,
        )
        self.to(device=device, dtype=dtype)

    @classmethod
    def sized(cls, **sizes: Any) -> partial[Any]:
        """The block with other sizes, for networks that take a block class.

        Args:
            **sizes: ``group_size``, ``coarse_size`` and further arguments of the block.

        Example:
            >>> block = MGICBasicBlock2d.sized(group_size=8, coarse_size=16)
            >>> block.expansion
            1
        """
        factory = partial(cls, **sizes)
        factory.expansion = cls.expansion  # type: ignore[attr-defined]  # networks ask the class for it
        return factory

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, expansion · planes, H', W'), smaller by the stride."""
        x, finest = self.shortcut(x), self.cycle.blocks[0]
        plain = isinstance(finest, BasicBlock2d) and not finest.preactivation
        if plain and fits_turned(x, finest.conv1, finest.bn1, finest.act):  # type: ignore[arg-type]
            return self.cycle(x.contiguous(memory_format=torch.channels_last)).contiguous()
        return self.cycle(x)

    def __repr__(self) -> str:
        wide = "" if self.expansion == 1 else f", {self.expansion} channels a plane"
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, stride={self.stride}, "
            f"{self.hierarchy}{wide})"
        )


class MGICBasicBlock2d(_MGICResidual2d):
    r"""A basic residual block, its dense channel coupling replaced by Algorithm 1 of the paper.

    The first nine arguments, and the names of those behind, are those of the ResNet blocks of torchvision
    and timm, so that ``ResNet(block=MGICBasicBlock2d, ...)`` works; :meth:`sized` sets the others.

    Args:
        in_channels: Width of the input.
        planes: Width of the output.
        stride: Of the shortcut, ahead of the cycle.
        downsample: The network's own shortcut, dense and so quadratic in the width: dropped, for
            :func:`depthwise_shortcut` takes its place.
        groups: Must stay 1: the levels take their groups from ``group_size``.
        base_width: Must stay 64.
        dilation: Of the 3×3 convolutions.
        norm_layer: ``norm_layer(width)``; batch normalisation by default.
        act_layer: Called with ``inplace=True`` where it takes that.
        group_size: Largest number of channels in a group, :math:`s_g`.
        coarse_size: Largest width of the coarsest, fully coupled level, :math:`s_c`.
        min_levels: Coarsen at least this many times.
        transfer_init: ``"random"``, ``"average"`` or ``"signed"``, see :class:`mgic_geo.Restriction`.
        correction_scale: Start of the finest scales of N; see :class:`mgic_geo.MGICBlock`.
        preactivation: As for :class:`mgic_geo.BasicBlock2d`.
        device: Where the weights are made.
        dtype: Of the weights.
        **network: Further arguments of timm's blocks; what they ask for must be nothing.

    Shapes:
        - input: (B, in_channels, H, W);
        - output: (B, planes, H / stride, W / stride), rounded up.

    Raises:
        TypeError: On an argument that no network passes.
        ValueError: On impossible sizes, or on parts of a network's block that this one has not.
    """

    level, expansion = BasicBlock2d, 1


class MGICBottleneck2d(_MGICResidual2d):
    r"""A bottleneck block (equation 2), its dense channel coupling replaced by Algorithm 1 of the paper.

    Arguments as for :class:`MGICBasicBlock2d`, but the output has ``4 * planes`` channels. Sizes count
    planes, the channels of the 3×3 convolutions: a group of ``group_size`` planes holds four times as many
    channels between blocks, which the transfers map.
    """

    level, expansion = Bottleneck2d, 4


class MGICInvertedResidual2d(nn.Module):
    r"""MobileNetV3's inverted residual, its dense channel coupling replaced by Algorithm 1 of the paper.

    Each level widens by the factor ``expanded_channels / out_channels``, squeezes a quarter of that, and
    groups both as the level is grouped. Nothing is activated behind the shortcut.

    Args:
        in_channels: Width of the input.
        expanded_channels: Width of the finest level's depth-wise convolution.
        out_channels: Width of the output.
        kernel_size: Of the depth-wise convolutions.
        stride: Of the shortcut, ahead of the cycle.
        squeeze: Squeeze and excite.
        dilation: Of the depth-wise convolutions.
        norm_layer: ``norm_layer(width)``; batch normalisation by default.
        act_layer: Called with ``inplace=True`` where it takes that.
        group_size: Largest number of channels in a group, :math:`s_g`.
        coarse_size: Largest width of the coarsest, fully coupled level, :math:`s_c`.
        min_levels: Coarsen at least this many times.
        transfer_init: ``"random"``, ``"average"`` or ``"signed"``, see :class:`mgic_geo.Restriction`.
        correction_scale: Start of the finest scales of N; see :class:`mgic_geo.MGICBlock`.

    Shapes:
        - input: (B, in_channels, H, W);
        - output: (B, out_channels, H / stride, W / stride), rounded up.

    Raises:
        ValueError: On impossible sizes.
    """

    def __init__(
        self,
        in_channels: int,
        expanded_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        squeeze: bool = False,
        dilation: int = 1,
        norm_layer: Layer | None = None,
        act_layer: Layer = nn.Hardswish,
        *,
        group_size: int = 64,
        coarse_size: int = 64,
        min_levels: int = 0,
        transfer_init: str = "random",
        correction_scale: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride
        self.hierarchy = ChannelHierarchy(out_channels, group_size, coarse_size, min_levels)
        norm = norm_layer or nn.BatchNorm2d

        def block(width: int, groups: int) -> nn.Module:
            expanded = groups * max(1, round(expanded_channels * width / (out_channels * groups)))
            squeezed = groups * math.ceil(squeeze_width(expanded) / groups) if squeeze else 0
            return InvertedResidual2d(
                width, expanded, width, kernel_size, 1, squeezed, groups, dilation, norm, act_layer
            )

        self.shortcut = depthwise_shortcut(in_channels, out_channels, stride, norm, act_layer=None)
        self.cycle = MGICBlock(
            self.hierarchy,
            block,
            pointwise=partial(GroupedLinear, channel_dim=1),
            norm=norm,
            transfer_init=transfer_init,
            correction_scale=correction_scale,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W'), smaller by the stride."""
        return self.cycle(self.shortcut(x))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, stride={self.stride}, "
            f"{self.hierarchy})"
        )


def _refuse(**network: Any) -> None:
    """Let a network's arguments pass if they ask for nothing that a MGIC block has not."""
    for name, value in network.items():
        if name not in _NOTHING:
            raise TypeError(f"a MGIC block has no argument {name!r}")
        if name != "first_dilation" and value != _NOTHING[name]:
            raise ValueError(
                f"a MGIC block takes {name}={_NOTHING[name]!r} only, got {value!r}; its groups come from "
                f"group_size, and attention or drop-path go around it"
            )
