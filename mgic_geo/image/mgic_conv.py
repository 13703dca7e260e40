"""A convolution whose channels are coupled by a multigrid cycle: the layer, without a block around it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from mgic_geo.core import ChannelHierarchy, GroupedLinear, MGICBlock
from mgic_geo.core.linear import LINEAR_GAIN, keep_scale_, light_groups, start_levels_

__all__ = ["MGICConv2d"]

Size = int | tuple[int, int]


class MGICConv2d(nn.Module):
    r"""A convolution at a cost linear in its width: Algorithm 1 with one grouped convolution a level.

    Stands where a dense :class:`torch.nn.Conv2d` stands, and takes its arguments. Three cases:

    - a kernel that keeps the image's size, up to its stride: a depth-wise 3×3 convolution first brings the
      input to ``out_channels`` and the output's resolution (section 4.3), in as many groups as divide both
      widths; then the cycle runs with the layer's kernel, and equation (8) counts its parameters;
    - a 1×1 kernel: as :class:`mgic_geo.MGICLinear` at every pixel, the cycle at the narrower width;
    - any other, a 2×2 kernel with stride 2, say: a grouped convolution with the layer's kernel changes width
      and resolution, then the cycle is 1×1.

    Without ``norm`` all this is a linear map, as the layer it replaces.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        kernel_size: Of the layer.
        stride: Of the layer.
        padding: Of the layer; ``"same"`` and ``"valid"`` as ``nn.Conv2d`` takes them.
        dilation: Of the layer.
        groups: Must stay 1: the levels take their groups from ``group_size``.
        bias: Add a learned bias.
        padding_mode: Of the layer.
        group_size: Largest number of channels in a group, :math:`s_g`.
        coarse_size: Largest width of the coarsest, fully coupled level, :math:`s_c`.
        min_levels: Coarsen at least this many times.
        norm: ``norm(width)`` builds the normalisation of the corrections; None leaves it out.
        transfer_init: ``"random"``, ``"average"`` or ``"signed"``, see :class:`mgic_geo.Restriction`.

    Shapes:
        - input: (B, in_channels, H, W), or one image (in_channels, H, W);
        - output: as ``nn.Conv2d`` gives it.

    Raises:
        ValueError: On impossible sizes, an input of another shape, or if ``groups`` is not 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        group_size: int = 32,
        coarse_size: int = 64,
        min_levels: int = 0,
        norm: Callable[[int], nn.Module] | None = None,
        transfer_init: str = "signed",
    ) -> None:
        super().__init__()
        if groups != 1:
            raise ValueError(f"groups must stay 1, got {groups}: the levels take theirs from group_size")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.dilation = _pair(kernel_size), _pair(stride), _pair(dilation)
        # Read by models that compute the output's size, or pad ahead of the layer, as nn.Conv2d has them.
        self.padding = padding if isinstance(padding, str) else _pair(padding)
        self.groups, self.padding_mode, self.transposed = groups, padding_mode, False
        self.output_padding = (0, 0)
        pointwise, keeps_size = self.kernel_size == (1, 1), _keeps_size(self.kernel_size, padding, dilation)
        pointwise = pointwise and keeps_size
        width = min(in_channels, out_channels) if pointwise else out_channels
        self.hierarchy = ChannelHierarchy(width, group_size, coarse_size, min_levels)
        mode: Any = padding_mode
        light = partial(nn.Conv2d, in_channels, out_channels, bias=False, padding_mode=mode)
        groups = light_groups(in_channels, out_channels, group_size)
        shapes_change = (self.stride, in_channels) != ((1, 1), out_channels)
        self.shortcut: nn.Module = nn.Identity()
        self.widen: nn.Module = nn.Identity()
        if pointwise and in_channels > out_channels:
            self.shortcut = light(1, stride, groups=groups)
        elif pointwise and self.stride != (1, 1):
            self.shortcut = nn.MaxPool2d(1, stride)  # of one pixel: takes every stride-th
        elif not keeps_size:
            self.shortcut = light(kernel_size, stride, padding, dilation, groups=groups)  # type: ignore[arg-type]
        elif not pointwise and shapes_change:
            self.shortcut = light(3, stride, 1, groups=math.gcd(in_channels, out_channels))
        if pointwise and in_channels < out_channels:
            self.widen = light(1, groups=groups)

        kernel = self.kernel_size if keeps_size else (1, 1)
        spacing = self.dilation if keeps_size else (1, 1)
        inside: Any = tuple(d * (k - 1) // 2 for k, d in zip(kernel, spacing, strict=True))
        self.cycle = MGICBlock(
            self.hierarchy,
            lambda width, groups: nn.Conv2d(width, width, kernel, 1, inside, spacing, groups, False, mode),
            pointwise=partial(GroupedLinear, channel_dim=1),
            norm=norm or (lambda width: nn.Identity()),
            transfer_init=transfer_init,
        )
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew: the bias as ``nn.Conv2d`` would, outputs at the scale of its own."""
        self.cycle.reset_parameters()
        start_levels_(self.cycle, LINEAR_GAIN)
        for light in (self.shortcut, self.widen):
            if isinstance(light, nn.Conv2d):
                keep_scale_(light.weight)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W'), and one image likewise."""
        x = input  # the name by which torch's own layer may be called
        if isinstance(x, Tensor):  # a proxy of torch.fx has no shape, and is taken for a batch
            if x.dim() not in (3, 4) or x.size(-3) != self.in_channels:
                raise ValueError(
                    f"expected images (B, {self.in_channels}, H, W) or one image ({self.in_channels}, H, W), "
                    f"got shape {tuple(x.shape)}"
                )
            if x.dim() == 3:
                return self.forward(x.unsqueeze(0)).squeeze(0)
        x = self.widen(self.cycle(self.shortcut(x)))
        return x if self.bias is None else x + self.bias[:, None, None].to(x.dtype)  # float32 under autocast

    def __repr__(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}" if self.stride != (1, 1) else ""
        text += f", dilation={self.dilation}" if self.dilation != (1, 1) else ""
        text += "" if self.bias is not None else ", bias=False"
        return f"{type(self).__name__}({text}, {self.hierarchy})"


def _keeps_size(kernel: tuple[int, ...], padding: Size | str, dilation: Size) -> bool:
    """Whether a convolution keeps the image's size, up to its stride, its kernel's centre on the pixel."""
    centred = tuple(d * (k - 1) // 2 for k, d in zip(kernel, _pair(dilation), strict=True))
    given = centred if padding == "same" else (0, 0) if padding == "valid" else _pair(padding)
    return tuple(given) == centred and all(k % 2 for k in kernel)
