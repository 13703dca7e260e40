"""Random changes to training images, a batch at a time, on the device where the batch lies."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .color import Color
from .epochs import to_device


@dataclass(frozen=True)
class ImageAugment:
    """Augmentation of a batch of small images; each part has a value that switches it off.

    The default is CIFAR's customary one. Random numbers are drawn on the host, so that a batch comes out the
    same on every device, and all of them are drawn always, so that a part that is off changes no other.

    Args:
        padding: Crop each image at random from itself with this many black pixels around; 0: off.
        flip: Mirror half of the images, left to right.
        color: Changes of colour; None: off.
        cutout: Side, in pixels, of a square that is painted over in the mean colour. Its centre lies anywhere
            in the image, so it may reach over the edge; 0: off.

    Raises:
        ValueError: If a value is below 0.
    """

    padding: int = 4
    flip: bool = True
    color: Color | None = None
    cutout: int = 0

    def __post_init__(self) -> None:
        for name in ("padding", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 (off) or more pixels; got {getattr(self, name)}")

    def __call__(
        self, images: Tensor, targets: Tensor, generator: torch.Generator, fill: tuple[float, float, float]
    ) -> tuple[Tensor, Tensor]:
        """Change a batch.

        Args:
            images: (B, 3, H, W) uint8.
            targets: (B,) labels; they stay as they are.
            generator: The source of randomness, on the host.
            fill: Red, green and blue of painted squares, in 0 … 1.

        Returns:
            (images, targets): uint8, or floats in 0 … 1 where colours change.
        """
        draws = to_device(torch.rand(len(images), 8, generator=generator), images.device)
        if self.padding or self.flip:
            shifts = (draws[:, :2] * (2 * self.padding + 1)).long()
            flips = (draws[:, 2] < 0.5) & self.flip
            images = crop_and_flip(images, shifts, flips, self.padding)
        if self.color is not None:
            images = self.color(images, draws[:, 3:6])
        if self.cutout:
            images = cut_out(images, draws[:, 6:], self.cutout, fill)
        return images, targets


def crop_and_flip(images: Tensor, shifts: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Crop each image from itself with ``padding`` zeros around, then mirror it where asked.

    Args:
        images: (B, 3, H, W).
        shifts: (B, 2) int64, the crop's top and left in the padded image.
        flips: (B,) bool.
        padding: Pixels around.

    Returns:
        (B, 3, H, W).
    """
    _, _, height, width = images.shape
    down, right = (torch.arange(length, device=images.device) for length in (height, width))
    rows = shifts[:, :1] + down
    columns = shifts[:, 1:] + torch.where(flips[:, None], width - 1 - right, right)
    # One gather does both; slicing image by image, or indexing both axes, was slower on CPU.
    places = rows[:, :, None] * (width + 2 * padding) + columns[:, None]
    padded = F.pad(images, (padding,) * 4).flatten(2)
    return padded.gather(2, places.flatten(1)[:, None].expand(-1, 3, -1)).view_as(images)


def cut_out(images: Tensor, draws: Tensor, side: int, fill: tuple[float, float, float]) -> Tensor:
    """Paint a square into each image.

    Args:
        images: (B, 3, H, W), uint8 or floats in 0 … 1.
        draws: (B, 2) uniform in 0 … 1: the centre's row and column.
        side: Of the square, in pixels.
        fill: Its colour, in 0 … 1.

    Returns:
        (B, 3, H, W) floats in 0 … 1.
    """
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    inside = []
    for length, draw in zip(images.shape[2:], draws.unbind(1), strict=True):
        start = (draw * length).long()[:, None] - side // 2
        place = torch.arange(length, device=images.device)
        inside.append((start <= place) & (place < start + side))
    hole = (inside[0][:, :, None] & inside[1][:, None])[:, None]
    colour = to_device(torch.tensor(fill), images.device).view(3, 1, 1)
    return torch.where(hole, colour, images)
