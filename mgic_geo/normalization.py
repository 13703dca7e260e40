"""What the colours of an image are brought to ahead of a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["IMAGENET", "Normalization"]


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each colour, on the scale 0 … 1: what a model's input is brought to.

    Args:
        mean: Of red, green and blue.
        std: Likewise, each above 0.

    Raises:
        ValueError: If a value is out of its range.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) > 0:
            raise ValueError(
                f"mean and std must be three numbers each, std above 0; got {self.mean} and {self.std}"
            )

    @classmethod
    def of(cls, images: Tensor) -> Normalization:
        """Mean and deviation over all pixels of ``images`` (S, 3, H, W) uint8: a training split.

        Raises:
            ValueError: If there is no image, or a colour is the same everywhere.
        """
        if not images.numel():
            raise ValueError("there is no image to take mean and deviation of")
        total, squares = torch.zeros(2, 3, dtype=torch.int64)
        for some in images.split(max(1, 2**20 // images[0, 0].numel())):
            # 32-bit sums along a row are exact (255² · 2¹⁵ < 2³¹) and vectorised, unlike 64-bit ones.
            wide = some.int()
            total += wide.sum(-1, dtype=torch.int32).sum((0, 2))
            squares += wide.square_().sum(-1, dtype=torch.int32).sum((0, 2))
        count = images.numel() // 3
        mean = total.double() / count
        std = (squares.double() / count - mean**2).sqrt()
        return cls(_triple(mean / 255), _triple(std / 255))

    def __call__(self, images: Tensor) -> Tensor:
        """Bring ``images`` (B, 3, H, W), uint8 or floats in 0 … 1, to mean 0 and deviation 1, in float32."""
        scale, shift = _constants(self, images.device)
        return images.float() * (scale / 255 if images.dtype == torch.uint8 else scale) - shift


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@lru_cache(maxsize=64)
def _constants(normalization: Normalization, device: torch.device) -> tuple[Tensor, Tensor]:
    # Kept, because copying to a GPU in each batch would make the host wait for it each time.
    with torch.inference_mode(False):
        mean, std = torch.tensor((normalization.mean, normalization.std), device=device).view(2, 3, 1, 1)
        return 1 / std, mean / std


def _triple(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = values.tolist()
    return red, green, blue
