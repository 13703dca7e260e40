"""Residual, bottleneck and inverted residual blocks that act within channel groups."""

from __future__ import annotations

from torch import Tensor, nn

from mgic_geo.core.norm_act import norm_act
from mgic_geo.image.conv import Layer, activation, conv2d, conv_norm_act
from mgic_geo.image.conv_native import convolved

__all__ = [
    "BasicBlock2d", "Bottleneck2d", "InvertedResidual2d", "SqueezeExcite2d", "make_divisible",
    "squeeze_width",
]  # fmt: skip


class _Residual2d(nn.Module):
    """A shortcut beside a branch of convolutions conv1, conv2, ... with normalisations bn1, bn2, ...

    The names of the parts are torchvision's, so weights of its ResNets load.
    """

    expansion: int

    def __init__(
        self,
        in_channels: int,
        planes: int,
        stride: int = 1,
        downsample: nn.Module | None = None,
        groups: int = 1,
        dilation: int = 1,
        norm_layer: Layer | None = None,
        act_layer: Layer = nn.ReLU,
        preactivation: bool = False,
    ) -> None:
        super().__init__()
        convolutions = self.convolutions(in_channels, planes, stride, groups, dilation)
        norm_layer = norm_layer or nn.BatchNorm2d
        self.depth, self.preactivation = len(convolutions), preactivation
        for i, conv in enumerate(convolutions, start=1):
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", norm_layer(conv.in_channels if preactivation else conv.out_channels))
        self.act = activation(act_layer)
        out_channels = planes * self.expansion
        if downsample is None and (stride != 1 or in_channels != out_channels):
            downsample = conv_norm_act(in_channels, out_channels, 1, stride, groups, 1, norm_layer, None)
        self.downsample = downsample

    def convolutions(
        self, in_channels: int, planes: int, stride: int, groups: int, dilation: int
    ) -> list[nn.Conv2d]:
        """Return the branch's convolutions, first to last."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H', W'), smaller by the stride."""
        branch, shortcut = x, x if self.downsample is None else self.downsample(x)
        for i in range(1, self.depth + 1):
            conv, norm = getattr(self, f"conv{i}"), getattr(self, f"bn{i}")
            if self.preactivation:
                branch = conv(norm_act(branch, norm, self.act))
            else:
                branch = convolved(branch, conv, norm, self.act, None if i < self.depth else shortcut)
        return branch + shortcut if self.preactivation else branch


class BasicBlock2d(_Residual2d):
    r"""Two 3×3 convolutions beside a shortcut.

    With groups, the whole block acts within them: output group :math:`g` depends on input group
    :math:`g` only, as if small blocks stood side by side.

    Args:
        in_channels: Width of the input.
        planes: Width of the convolutions, and of the output.
        stride: Of the first convolution.
        downsample: The shortcut; by default the identity, or a 1×1 convolution where shapes differ.
        groups: Number of channel groups; must divide both widths.
        dilation: Of both convolutions.
        norm_layer: ``norm_layer(width)``; batch normalisation by default.
        act_layer: Called with ``inplace=True`` where it takes that.
        preactivation: Normalise and activate before each convolution, as in equation (2), and nothing behind
            the sum; else after it, as in the ResNets of torchvision.

    Shapes:
        - input: (B, in_channels, H, W);
        - output: (B, planes, H / stride, W / stride), rounded up.

    Raises:
        ValueError: If ``groups`` does not divide the widths.
    """

    expansion = 1

    def convolutions(
        self, in_channels: int, planes: int, stride: int, groups: int, dilation: int
    ) -> list[nn.Conv2d]:
        """Return the branch's convolutions, first to last."""
        return [
            conv2d(in_channels, planes, 3, stride, groups, dilation),
            conv2d(planes, planes, 3, 1, groups, dilation),
        ]


class Bottleneck2d(_Residual2d):
    r"""1×1, 3×3 and 1×1 convolutions beside a shortcut; the middle is four times narrower.

    With ``preactivation=True`` it is equation (2) of the paper,
    :math:`x + K_3 \sigma(\mathcal{N}(K_2 \sigma(\mathcal{N}(K_1 \sigma(\mathcal{N}(x))))))`; the default is
    the order of the ResNet-50 that the paper compares with. Arguments as for :class:`BasicBlock2d`, but the
    output has ``4 * planes`` channels, the stride is the 3×3 convolution's, and ``groups`` divides all three.
    """

    expansion = 4

    def convolutions(
        self, in_channels: int, planes: int, stride: int, groups: int, dilation: int
    ) -> list[nn.Conv2d]:
        """Return the branch's convolutions, first to last."""
        return [
            conv2d(in_channels, planes, 1, 1, groups),
            conv2d(planes, planes, 3, stride, groups, dilation),
            conv2d(planes, planes * self.expansion, 1, 1, groups),
        ]


class SqueezeExcite2d(nn.Module):
    """Scales each channel by a gate computed from the means of its group's channels.

    Args:
        channels: Width of input and output.
        squeeze_channels: Width between the two 1×1 convolutions.
        groups: Number of channel groups; must divide both widths.
    """

    def __init__(self, channels: int, squeeze_channels: int, groups: int = 1) -> None:
        super().__init__()
        self.fc1 = conv2d(channels, squeeze_channels, 1, groups=groups, bias=True)
        self.fc2 = conv2d(squeeze_channels, channels, 1, groups=groups, bias=True)
        self.act, self.gate = nn.ReLU(inplace=True), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return x * self.gate(self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))))


class InvertedResidual2d(nn.Module):
    """MobileNetV3's block: widen, depth-wise convolution, squeeze-excite, narrow, without activation behind.

    Where input and output have the same shape, the input is added. With groups, all but the depth-wise
    convolution (which couples nothing) act within them. The parts are named as torchvision's.

    Args:
        in_channels: Width of the input.
        expanded_channels: Width of the depth-wise convolution; if it is that of the input, nothing widens.
        out_channels: Width of the output.
        kernel_size: Of the depth-wise convolution.
        stride: Of the depth-wise convolution.
        squeeze_channels: Width inside squeeze-excite; 0 leaves it out.
        groups: Number of channel groups; must divide all widths.
        dilation: Of the depth-wise convolution.
        norm_layer: ``norm_layer(width)``; batch normalisation by default.
        act_layer: Called with ``inplace=True`` where it takes that.

    Shapes:
        - input: (B, in_channels, H, W);
        - output: (B, out_channels, H / stride, W / stride), rounded up.

    Raises:
        ValueError: If ``groups`` does not divide the widths.
    """

    def __init__(
        self,
        in_channels: int,
        expanded_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        squeeze_channels: int = 0,
        groups: int = 1,
        dilation: int = 1,
        norm_layer: Layer | None = None,
        act_layer: Layer = nn.Hardswish,
    ) -> None:
        super().__init__()
        norm, mid = norm_layer or nn.BatchNorm2d, expanded_channels
        layers: list[nn.Module] = []
        if mid != in_channels:
            layers.append(conv_norm_act(in_channels, mid, 1, 1, groups, 1, norm, act_layer))
        layers.append(conv_norm_act(mid, mid, kernel_size, stride, mid, dilation, norm, act_layer))
        if squeeze_channels:
            layers.append(SqueezeExcite2d(mid, squeeze_channels, groups))
        layers.append(conv_norm_act(mid, out_channels, 1, 1, groups, 1, norm, None))
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H', W'), smaller by the stride."""
        return x + self.block(x) if self.residual else self.block(x)


def squeeze_width(expanded: int) -> int:
    """MobileNetV3's width inside squeeze-excite: a quarter, in steps of 8."""
    return make_divisible(expanded // 4)


def make_divisible(value: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor`` not more than a tenth below ``value``: MobileNet's rule."""
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * value else nearest
