"""MobileNetV3 Large and Small, plain and with MGIC blocks (paper, section 5.2.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from mgic_geo.image.blocks import InvertedResidual2d, make_divisible, squeeze_width
from mgic_geo.image.conv import Layer, conv_norm_act, initialize
from mgic_geo.image.mgic_blocks import MGICInvertedResidual2d
from mgic_geo.models.heads import linear_head

__all__ = [
    "LARGE", "SMALL", "MobileNetV3", "Row", "mgic_mobilenetv3", "mgic_mobilenetv3_large",
    "mgic_mobilenetv3_small", "mobilenetv3_large", "mobilenetv3_small",
]  # fmt: skip


class Row(NamedTuple):
    """One block: a line of tables 1 and 2 of MobileNetV3's paper (Howard et al., 2019)."""

    kernel_size: int
    expanded: int
    out: int
    squeeze: bool
    hard_swish: bool
    stride: int


LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)


class MobileNetV3(nn.Module):
    """A strided stem, inverted residuals, a last 1×1 convolution, mean pooling, two linear layers.

    The parts are named as torchvision's, so weights of its MobileNetV3 load into plain blocks.

    Args:
        rows: The blocks, such as ``LARGE``.
        hidden: Width between the two linear layers, at width 1.
        num_classes: Number of classes; 0 leaves the pooled features.
        in_channels: Channels of the image.
        width: Factor of all widths, which are then made divisible by 8.
        block: ``block(in_channels, expanded, out, kernel_size, stride, squeeze, dilation, norm_layer,
            act_layer)``; :class:`mgic_geo.InvertedResidual2d` by default.
        dropout: Probability of dropout between the two linear layers.
        last_factor: The last convolution's width over that of the last block.
        norm_layer: ``norm_layer(width)``; MobileNet's batch normalisation by default.
        halved_tail: Halve the width of the last stage, as for segmentation, see :func:`halved`.
        tail_squeeze: With ``halved_tail``, keep squeeze-excite in that stage's first block.
        output_stride: 32, or 16 to dilate the last stage instead of striding it.

    Shapes:
        - input: (B, in_channels, H, W);
        - output: logits (B, num_classes).

    Raises:
        ValueError: If ``output_stride`` is neither 16 nor 32.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        hidden: int,
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        block: Callable[..., nn.Module] | None = None,
        dropout: float = 0.2,
        last_factor: float = 6.0,
        norm_layer: Layer | None = None,
        halved_tail: bool = False,
        tail_squeeze: bool = False,
        output_stride: int = 32,
    ) -> None:
        super().__init__()
        if output_stride not in (16, 32):
            raise ValueError(f"output_stride must be 16 or 32, got {output_stride}")
        norm = norm_layer or partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)
        block = block or _plain
        channels = make_divisible(rows[0].out * width)
        layers: list[nn.Module] = [conv_norm_act(in_channels, channels, 3, 2, 1, 1, norm, nn.Hardswish)]
        ends, strides = [], [2]  # a stage ends ahead of each strided block
        last_stage = tail(rows)
        for i, row in enumerate(halved(rows, tail_squeeze) if halved_tail else rows):
            stride, dilation = row.stride, 1
            if row.stride == 2:
                ends.append((len(layers), channels))
                strides.append(strides[-1] * 2)
            if i >= last_stage and output_stride == 16:
                stride, dilation, strides[-1] = 1, 2, strides[-2]
            expanded, out = make_divisible(row.expanded * width), make_divisible(row.out * width)
            act = nn.Hardswish if row.hard_swish else nn.ReLU
            layers.append(
                block(channels, expanded, out, row.kernel_size, stride, row.squeeze, dilation, norm, act)
            )
            channels = out
        self.num_features = make_divisible(last_factor * channels)
        layers.append(conv_norm_act(channels, self.num_features, 1, 1, 1, 1, norm, nn.Hardswish))
        self.features = nn.Sequential(*layers)
        self._ends = [end for end, _ in ends]
        self.stage_channels = (*(width for _, width in ends), self.num_features)
        self.stage_strides = tuple(strides)
        self.hidden = make_divisible((hidden // 2 if halved_tail else hidden) * width)
        self.dropout = dropout
        self.classifier: nn.Module = nn.Identity()
        self.reset_classifier(num_classes)
        initialize(self)

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a new one for ``num_classes``; 0 removes both linear layers."""
        last = linear_head(self.hidden, num_classes, like=self)
        if num_classes == 0:
            self.classifier = last
        elif isinstance(self.classifier, nn.Sequential):
            self.classifier[3] = last
        else:
            first = linear_head(self.num_features, self.hidden, like=self)
            self.classifier = nn.Sequential(first, nn.Hardswish(), nn.Dropout(self.dropout), last)
        self.num_classes = num_classes

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """The last features at each resolution, finest first; the last are the last convolution's."""
        outputs = []
        for i, layer in enumerate(self.features):
            if i in self._ends:
                outputs.append(x)
            x = layer(x)
        return [*outputs, x]

    def forward_features(self, x: Tensor) -> Tensor:
        """Pooled features (B, num_features)."""
        return self.features(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes)."""
        return self.classifier(self.forward_features(x))


def tail(rows: Sequence[Row]) -> int:
    """Where the last stage begins: the last row with a stride."""
    return max(i for i, row in enumerate(rows) if row.stride == 2)


def halved(rows: Sequence[Row], tail_squeeze: bool = False) -> list[Row]:
    """Half the width in the last stage, for segmentation (MobileNetV3's paper, section 6.4).

    The stage's first block still widens what it gets as before. Unless ``tail_squeeze``, it has no
    squeeze-excite: only so are the parameters those of that paper, 1.51 M (Large) and 0.47 M (Small).
    """
    first = tail(rows)
    head, (start, *rest) = rows[:first], rows[first:]
    start = start._replace(out=start.out // 2, squeeze=start.squeeze and tail_squeeze)
    return [*head, start, *(row._replace(out=row.out // 2, expanded=row.expanded // 2) for row in rest)]


def _plain(
    in_channels: int, expanded: int, out: int, kernel_size: int, stride: int, squeeze: bool, dilation: int,
    norm_layer: Layer, act_layer: Layer,
) -> InvertedResidual2d:  # fmt: skip
    squeezed = squeeze_width(expanded) if squeeze else 0
    return InvertedResidual2d(
        in_channels, expanded, out, kernel_size, stride, squeezed, 1, dilation, norm_layer, act_layer
    )


def mobilenetv3_large(num_classes: int = 1000, **kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Large."""
    return MobileNetV3(LARGE, 1280, num_classes, **kwargs)


def mobilenetv3_small(num_classes: int = 1000, **kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Small."""
    return MobileNetV3(SMALL, 1024, num_classes, **kwargs)


def mgic_mobilenetv3_large(num_classes: int = 1000, hidden: int = 1280, **kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Large with MGIC blocks; arguments as for :func:`mgic_mobilenetv3`."""
    return mgic_mobilenetv3(LARGE, hidden, num_classes, **kwargs)


def mgic_mobilenetv3_small(num_classes: int = 1000, hidden: int = 1024, **kwargs: Any) -> MobileNetV3:
    """MobileNetV3-Small with MGIC blocks; arguments as for :func:`mgic_mobilenetv3`."""
    return mgic_mobilenetv3(SMALL, hidden, num_classes, **kwargs)


def mgic_mobilenetv3(
    rows: Sequence[Row],
    hidden: int,
    num_classes: int = 1000,
    group_size: int = 64,
    coarse_size: int = 64,
    min_levels: int = 0,
    transfer_init: str = "random",
    skip: Sequence[int] = (),
    expansion: float = 1.0,
    **kwargs: Any,
) -> MobileNetV3:
    """MobileNetV3 with MGIC blocks (paper, section 5.2.2).

    Args:
        rows: The blocks, such as ``LARGE``.
        hidden: Width between the two linear layers, at width 1.
        num_classes: Number of classes; 0 leaves the pooled features.
        group_size: As for :class:`mgic_geo.MGICInvertedResidual2d`, like the three behind it.
        coarse_size: Largest width of the coarsest, fully coupled level.
        min_levels: Coarsen at least this many times.
        transfer_init: Start of the transfers.
        skip: Numbers of rows to leave out, counted from 0; none with a stride.
        expansion: Factor of the widths of the depth-wise convolutions.
        **kwargs: Of :class:`MobileNetV3`.

    Raises:
        ValueError: If ``skip`` names a row that changes the resolution or the width, or that is not there.
    """
    for i in skip:
        if not 0 < i < len(rows) or rows[i].stride != 1 or rows[i].out != rows[i - 1].out:
            raise ValueError(f"skip takes rows that keep width and resolution, got {i} of {len(rows)} rows")
    rows = [
        row._replace(expanded=round(row.expanded * expansion)) for i, row in enumerate(rows) if i not in skip
    ]
    block = partial(
        MGICInvertedResidual2d,
        group_size=group_size,
        coarse_size=coarse_size,
        min_levels=min_levels,
        transfer_init=transfer_init,
    )
    return MobileNetV3(rows, hidden, num_classes, block=block, **kwargs)
