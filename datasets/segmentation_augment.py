"""Random changes to images and their masks alike, on the device where the batch lies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .color import Color
from .epochs import to_device
from .masks import IGNORE


@dataclass(frozen=True)
class SegmentationAugment:
    """Multi-scale random crop, flip and colour changes; image and mask undergo the same crop and flip.

    An image is enlarged by a factor drawn from ``scale``; a window of ``size`` is cut from the result at
    random. Where the result is smaller than the window, it lies at random in a frame of the fill colour,
    whose labels are ``IGNORE``. Only the part that is seen is resized: bilinear with antialiasing, as
    torchvision's v2 does, and for masks the nearest pixel's label.

    Random numbers are drawn on the host, so that a batch comes out the same on every device, and all of them
    are drawn always, so that a part that is off changes no other.

    Args:
        size: Height and width of the result; None: those of the image.
        scale: The range of the factor, uniform; (1, 1) switches scaling off.
        flip: Mirror half of the images, left to right.
        color: Changes of colour; None: off.

    Raises:
        ValueError: If a value is out of its range.
    """

    size: tuple[int, int] | None = None
    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    color: Color | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high, finite; got {self.scale}")
        if self.size is not None and min(self.size) < 1:
            raise ValueError(
                f"size must be (height, width) in pixels, or None for the image's; got {self.size}"
            )

    def __call__(
        self, images: Tensor, targets: Tensor, generator: torch.Generator, fill: tuple[float, float, float]
    ) -> tuple[Tensor, Tensor]:
        """Change a batch.

        Args:
            images: (B, 3, H, W) uint8.
            targets: (B, H, W) uint8 masks.
            generator: The source of randomness, on the host.
            fill: Red, green and blue of the frame around small images, in 0 … 1.

        Returns:
            Images (B, 3, *size), uint8, or floats in 0 … 1 where colours change, and masks (B, *size) uint8.
        """
        height, width = self.size or images.shape[-2:]
        draws = torch.rand(len(images), 9, generator=generator)
        frame = to_device(torch.tensor(fill).mul(255).round().byte(), images.device).view(1, 3, 1, 1)
        results = frame.expand(len(images), 3, height, width).clone(memory_format=torch.contiguous_format)
        masks = targets.new_full((len(images), height, width), IGNORE)
        for image, mask, result, result_mask, draw in zip(
            images, targets, results, masks, draws.tolist(), strict=True
        ):
            self._cut(image, mask, result, result_mask, draw)
        if self.color is not None:
            results = self.color(results, to_device(draws[:, 6:], images.device))
        return results, masks

    def _cut(
        self, image: Tensor, mask: Tensor, result: Tensor, result_mask: Tensor, draw: list[float]
    ) -> None:
        """Fill the part of ``result`` (3, h, w) and ``result_mask`` (h, w) that the image reaches."""
        factor = self.scale[0] + draw[0] * (self.scale[1] - self.scale[0])
        source, target = [], []
        for length, wanted, start, place in zip(
            image.shape[1:], result.shape[1:], draw[1:3], draw[3:5], strict=True
        ):
            seen = min(length, max(1, round(wanted / factor)))  # pixels of the image that the window shows
            covered = min(wanted, max(1, round(seen * factor))) if seen == length else wanted
            source.append(_window(length, seen, start))
            target.append(_window(wanted, covered, place))
        pixels, labels = image[:, *source], mask[*source]
        if self.flip and draw[5] < 0.5:
            pixels, labels = pixels.flip(-1), labels.flip(-1)
        result, result_mask = result[:, *target], result_mask[*target]
        result.copy_(resize(pixels, result.shape[1:]))
        result_mask.copy_(resize_mask(labels, result_mask.shape))


def resize(image: Tensor, size: torch.Size) -> Tensor:
    """Resize an image (3, H, W) uint8 to ``size``, bilinear with antialiasing."""
    if image.shape[1:] == size:
        return image
    # Bytes are resized as they are on CPU only, where that is several times faster than in floats, and where
    # torch 2.14 fails if one pixel comes out.
    pixels = image if image.device.type == "cpu" and max(size) > 1 else image.float()
    pixels = F.interpolate(pixels[None], tuple(size), mode="bilinear", antialias=True)[0]
    return pixels if pixels.dtype == torch.uint8 else pixels.round_().byte()


def resize_mask(mask: Tensor, size: torch.Size) -> Tensor:
    """Resize a mask (H, W) uint8 to ``size``; each pixel takes the label at its centre."""
    return F.interpolate(mask[None, None], tuple(size), mode="nearest-exact")[0, 0]


def _window(length: int, part: int, draw: float) -> slice:
    start = min(int(draw * (length - part + 1)), length - part)
    return slice(start, start + part)
