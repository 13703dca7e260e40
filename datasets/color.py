"""Random changes of brightness, contrast and saturation, a batch at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Color:
    """Colour jitter with torchvision's meaning, each image by its own factors.

    Brightness, contrast and saturation follow one another in this order; torchvision's ``ColorJitter`` draws
    the order too.

    Args:
        brightness: Colours are multiplied by a factor uniform in 1 ± this, but 0 or more; 0 switches it off.
        contrast: Likewise their distance from the image's mean grey.
        saturation: Likewise their distance from the pixel's own grey.

    Raises:
        ValueError: If a value is below 0, or not finite.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 (off) or more, and finite; got {getattr(self, name)}")

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Change ``images`` (B, 3, H, W), uint8 or floats in 0 … 1.

        Args:
            images: The batch.
            draws: (B, 3) uniform in 0 … 1, on the same device: they decide the factors.

        Returns:
            Floats in 0 … 1.
        """
        images = images.float() / 255 if images.dtype == torch.uint8 else images
        strengths = (self.brightness, self.contrast, self.saturation)
        factors = [
            (max(0.0, 1 - strength) + draw * (1 + strength - max(0.0, 1 - strength))).view(-1, 1, 1, 1)
            for strength, draw in zip(strengths, draws.unbind(1), strict=True)
        ]
        if self.brightness:
            images = (images * factors[0]).clamp_(0, 1)
        if self.contrast:
            mean = _grey(images).mean((2, 3), keepdim=True)
            images = torch.lerp(mean, images, factors[1]).clamp_(0, 1)
        if self.saturation:
            images = torch.lerp(_grey(images), images, factors[2]).clamp_(0, 1)
        return images


def _grey(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, 1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue
