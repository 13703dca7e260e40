"""Random changes to training clouds, on the device where the batch lies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Augment:
    """Augmentation of a batch of clouds; each part has a value that switches it off.

    DGCNN's recipe is ``Augment(jitter=0.0)``: scale and shift only. The up axis of ModelNet's files is z
    (its chairs, toilets and night stands are tallest along z), so rotation is about z.

    Args:
        scale: Each axis is multiplied by its own factor, uniform in this range; None switches it off.
        shift: Each axis is shifted by up to this much either way, uniformly; 0 switches it off.
        jitter: Standard deviation of a Gaussian added to each coordinate, clipped at twice that; 0: off.
        rotate: Turn each cloud about the z axis by an angle uniform over the circle.
        dropout: Each cloud loses a share of its points, uniform between 0 and this, below 1; 0: off. Lost
            points are replaced by the cloud's first point, PointNet++'s habit, so shapes stay.

    Raises:
        ValueError: If a value is out of its range.
    """

    scale: tuple[float, float] | None = (2 / 3, 3 / 2)
    shift: float = 0.2
    jitter: float = 0.01
    rotate: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high, or None; got {self.scale}")
        for name in ("shift", "jitter"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 (off) or more; got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be 0 (off) or more, and below 1; got {self.dropout}")

    def __call__(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """The batch ``points`` (B, N, 3), changed; ``generator`` lies on the same device."""
        like = {"device": points.device, "dtype": points.dtype}
        batch, count, _ = points.shape

        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, **like) * (high - low) + low

        if self.dropout:
            share = uniform(0, self.dropout, batch, 1)
            lost = uniform(0, 1, batch, count) < share
            points = torch.where(lost[..., None], points[:, :1], points)
        if self.rotate:
            angle = uniform(0, 2 * math.pi, batch)
            cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
            turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).view(batch, 3, 3)
            points = points @ turn.mT
        if self.scale is not None:
            points = points * uniform(*self.scale, batch, 1, 3)
        if self.shift:
            points = points + uniform(-self.shift, self.shift, batch, 1, 3)
        if self.jitter:
            noise = torch.randn(points.shape, generator=generator, **like)
            points = points + self.jitter * noise.clamp_(-2, 2)
        return points
