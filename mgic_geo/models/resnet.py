"""Residual networks, plain and with MGIC blocks: ResNet-56 for CIFAR, ResNet-50 for ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from mgic_geo.core.norm_act import norm_act
from mgic_geo.image.blocks import BasicBlock2d, Bottleneck2d
from mgic_geo.image.conv import Layer, conv2d, initialize
from mgic_geo.image.mgic_blocks import MGICBasicBlock2d, MGICBottleneck2d
from mgic_geo.models.heads import linear_head

__all__ = ["ResNet", "mgic_resnet50", "mgic_resnet56", "resnet50", "resnet56"]


class ResNet(nn.Module):
    r"""A stem, stages of blocks each half the resolution of the one before, mean pooling, a linear layer.

    The parts are named as torchvision's, so weights of its ResNets load into plain blocks.

    Args:
        block: ``block(in_channels, planes, stride, norm_layer=…, preactivation=…)`` with an attribute
            ``expansion``, such as :class:`mgic_geo.BasicBlock2d` or ``MGICBottleneck2d.sized(…)``.
        depths: Number of blocks of each stage.
        widths: Planes of each stage; the stem has the first stage's.
        num_classes: Number of classes; 0 leaves the pooled features.
        in_channels: Channels of the image.
        stem: ``"imagenet"``, a 7×7 convolution of stride 2 and a maximum pooling, or ``"cifar"``, a 3×3
            convolution.
        norm_layer: ``norm_layer(width)``; batch normalisation by default.
        preactivation: Of the blocks; a normalisation and activation then follow the last.

    Shapes:
        - input: (B, in_channels, H, W);
        - output: logits (B, num_classes).

    Raises:
        ValueError: On an unknown stem, or unequal numbers of depths and widths.
    """

    def __init__(
        self,
        block: Any,
        depths: Sequence[int],
        widths: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        stem: str = "imagenet",
        norm_layer: Layer | None = None,
        preactivation: bool = False,
    ) -> None:
        super().__init__()
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f"stem must be 'imagenet' or 'cifar', got {stem!r}")
        if len(depths) != len(widths) or not depths or min(depths) < 1:
            raise ValueError(
                f"every stage needs a depth of at least 1 and a width, got depths={tuple(depths)}, "
                f"widths={tuple(widths)}"
            )
        norm = norm_layer or nn.BatchNorm2d
        large = stem == "imagenet"
        self.conv1 = conv2d(in_channels, widths[0], 7 if large else 3, 2 if large else 1)
        self.bn1, self.act = norm(widths[0]), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        width, self.num_stages = widths[0], len(depths)
        for stage, (depth, planes) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(block(width, planes, stride, norm_layer=norm, preactivation=preactivation))
                width = planes * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.last = nn.Sequential(norm(width), nn.ReLU(inplace=True)) if preactivation else nn.Identity()
        self.stage_channels = tuple(planes * block.expansion for planes in widths)
        self.stage_strides = tuple((4 if large else 1) * 2**stage for stage in range(len(depths)))
        self.num_features = width
        self.fc: nn.Module
        self.reset_classifier(num_classes)
        initialize(self)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a new one for ``num_classes``; 0 removes it."""
        self.fc = linear_head(self.num_features, num_classes, like=self)
        self.num_classes = num_classes

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """The output of each stage, (B, stage_channels[i], H / stage_strides[i], W / stage_strides[i])."""
        x = self.maxpool(norm_act(self.conv1(x), self.bn1, self.act))
        outputs = []
        for stage in range(1, self.num_stages + 1):
            x = getattr(self, f"layer{stage}")(x)
            outputs.append(x)
        outputs[-1] = self.last(x)
        return outputs

    def forward_features(self, x: Tensor) -> Tensor:
        """Pooled features (B, num_features)."""
        return self.forward_stages(x)[-1].mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes)."""
        return self.fc(self.forward_features(x))


def resnet56(num_classes: int = 10, depths: Sequence[int] = (9, 9, 9), **kwargs: Any) -> ResNet:
    """ResNet-56 for CIFAR, with 1×1 convolutions as shortcuts where shapes change."""
    return ResNet(BasicBlock2d, depths, (16, 32, 64), num_classes, stem="cifar", **kwargs)


def mgic_resnet56(
    num_classes: int = 10,
    depths: Sequence[int] = (9, 9, 9),
    widths: Sequence[int] = (16, 32, 64),
    group_size: int = 8,
    coarse_size: int = 16,
    min_levels: int = 1,
    transfer_init: str = "random",
    **kwargs: Any,
) -> ResNet:
    """ResNet-56 with MGIC blocks (section 5.2.1), each coarsened at least once."""
    block = MGICBasicBlock2d.sized(
        group_size=group_size, coarse_size=coarse_size, min_levels=min_levels, transfer_init=transfer_init
    )
    return ResNet(block, depths, widths, num_classes, stem="cifar", **kwargs)


def resnet50(num_classes: int = 1000, depths: Sequence[int] = (3, 4, 6, 3), **kwargs: Any) -> ResNet:
    """ResNet-50, torchvision's."""
    return ResNet(Bottleneck2d, depths, (64, 128, 256, 512), num_classes, **kwargs)


def mgic_resnet50(
    num_classes: int = 1000,
    depths: Sequence[int] = (3, 4, 6, 3),
    widths: Sequence[int] = (64, 128, 256, 512),
    group_size: int = 32,
    coarse_size: int = 64,
    min_levels: int = 1,
    transfer_init: str = "random",
    **kwargs: Any,
) -> ResNet:
    """ResNet-50 with MGIC blocks (section 5.2.2), each coarsened at least once."""
    block = MGICBottleneck2d.sized(
        group_size=group_size, coarse_size=coarse_size, min_levels=min_levels, transfer_init=transfer_init
    )
    return ResNet(block, depths, widths, num_classes, **kwargs)
