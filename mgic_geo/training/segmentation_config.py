"""The flags of a segmenter's loss and normalisations."""

from __future__ import annotations

from dataclasses import dataclass

from mgic_geo.training.class_weights import ClassWeights
from mgic_geo.training.image_config import ImageConfig


@dataclass(kw_only=True)
class SegmentationConfig(ImageConfig):
    """Flags of experiments on images with masks."""

    class_weights: ClassWeights = "none"
    """Weights of the classes in the loss, by how often they occur in the training masks. median: the median
    of all frequencies over the class's own (median-frequency balancing); root: the square roots of these."""
    ohem: float = 1.0
    """Share of the pixels of a batch that count in the loss, the hardest ones (online hard example mining);
    1: all."""
    norm_momentum: float | None = 0.1
    """Share that a batch has in the running statistics of batch normalisations. MobileNetV3's own, 0.01, is
    meant for long trainings: after a few hundred steps its statistics lag behind the weights."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems()
        if not 0 < self.ohem <= 1:
            found.append(f"--ohem is {self.ohem}; give more than 0, and at most 1 (all pixels)")
        if self.norm_momentum is not None and not 0 < self.norm_momentum <= 1:
            found.append(f"--norm-momentum is {self.norm_momentum}; give more than 0 and at most 1, or None")
        return found
