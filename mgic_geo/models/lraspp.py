"""LR-ASPP: a light segmentation head on a MobileNetV3 trunk (Howard et al., 2019; paper, section 5.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mgic_geo.image.conv import conv2d, conv_norm_act, initialize
from mgic_geo.models.heads import FeatureMaps, placement

__all__ = ["LRASPP", "lraspp"]


class LRASPP(nn.Module):
    """Deep features, gated by their mean over the image, beside finer ones of an eighth of the resolution.

    The sum of both parts' logits passes one more map of classes to classes, as in the released code of
    the MGIC paper's authors; with it the multiply-adds are those that both papers give, within 2 %.

    Args:
        trunk: Feature maps of a network; the head reads its widths and strides.
        num_classes: Number of classes.
        filters: Width of the head.

    Shapes:
        - input: (B, C, H, W);
        - output: logits (B, num_classes, H, W).

    Raises:
        ValueError: If the trunk has no feature map of stride 8.
    """

    def __init__(self, trunk: FeatureMaps, num_classes: int = 19, filters: int = 128) -> None:
        super().__init__()
        if 8 not in trunk.strides[:-1]:
            raise ValueError(
                f"the trunk needs a map of stride 8 ahead of its last, got strides {trunk.strides}"
            )
        self.fine = trunk.strides.index(8)
        self.filters, self.fine_channels = filters, trunk.channels[self.fine]
        high = trunk.channels[-1]
        self.cbr = conv_norm_act(high, filters, 1)
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv2d(high, filters, 1), nn.Sigmoid())
        # Not the classifiers, whose logits would start far too large, nor the trunk, which may be trained.
        initialize(self)
        self.low_classifier: nn.Module
        self.high_classifier: nn.Module
        self.last: nn.Module
        self.reset_classifier(num_classes)
        self.trunk = trunk

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifying 1×1 convolutions by new ones.

        Raises:
            ValueError: If ``num_classes`` is below 1; take the trunk's ``features_only`` for features.
        """
        if num_classes < 1:
            raise ValueError(f"segmentation needs num_classes of at least 1, got {num_classes}")
        widths, like = (self.fine_channels, self.filters, num_classes), placement(self)
        self.low_classifier, self.high_classifier, self.last = (
            conv2d(width, num_classes, 1, bias=True).to(**like) for width in widths
        )
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes, H, W)."""
        maps = self.trunk(x)
        fine, high = maps[self.fine], maps[-1]
        high = self.cbr(high) * self.scale(high)
        high = F.interpolate(high, size=fine.shape[2:], mode="bilinear", align_corners=False)
        logits = self.last(self.low_classifier(fine) + self.high_classifier(high))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def lraspp(
    trunk: Callable[..., nn.Module],
    num_classes: int = 19,
    filters: int = 128,
    output_stride: int = 16,
    **kwargs: Any,
) -> LRASPP:
    """LR-ASPP on a MobileNetV3 whose last stage is half as wide, and dilated for ``output_stride`` 16.

    Args:
        trunk: Builds the MobileNetV3, such as :func:`mgic_geo.models.mobilenetv3.mobilenetv3_large`.
        num_classes: Number of classes; Cityscapes has 19.
        filters: Width of the head.
        output_stride: 16 or 32.
        **kwargs: Go to the trunk.
    """
    network = trunk(num_classes=0, halved_tail=True, output_stride=output_stride, **kwargs)
    return LRASPP(FeatureMaps(network), num_classes, filters)
