"""The flags of a segmenter's loss and normalisations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mgic_geo.training.image_config import ImageFileConfig
from mgic_geo.training.segmentation.class_weights import ClassWeights


@dataclass(kw_only=True)
class SegmentationConfig(ImageFileConfig):
    """Flags of experiments on images with masks."""

    expansion: float | None = None
    """Factor of the widths of the depth-wise convolutions, for MGIC models; by default as the name says."""
    class_weights: ClassWeights = "none"
    """Weights of the classes in the loss, by how often they occur in the training masks. median: the median
    of all frequencies over the class's own (median-frequency balancing); root: the square roots of these."""
    ohem: float = 1.0
    """Share of the pixels of a batch that count in the loss, the hardest ones (online hard example mining);
    1: all."""
    norm_momentum: float | None = 0.1
    """Share that a batch has in the running statistics of batch normalisations. MobileNetV3's own, 0.01, is
    meant for long trainings: after a few hundred steps its statistics lag behind the weights."""

    def model_kwargs(self) -> dict[str, Any]:
        """Return the arguments of ``create_model``."""
        factor = {} if self.expansion is None else {"expansion": self.expansion}
        return super().model_kwargs() | factor

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems()
        if self.expansion is not None and not 0 < self.expansion < float("inf"):
            found.append(f"--expansion is {self.expansion}; give more than 0, such as 1.25")
        if not 0 < self.ohem <= 1:
            found.append(f"--ohem is {self.ohem}; give more than 0, and at most 1 (all pixels)")
        if self.norm_momentum is not None and not 0 < self.norm_momentum <= 1:
            found.append(f"--norm-momentum is {self.norm_momentum}; give more than 0 and at most 1, or None")
        on_cpu = self.accelerator == "cpu" or not torch.cuda.device_count()
        if self.precision == "bf16-mixed" and self.channels_last and on_cpu:
            # Seen in torch 2.14: the weight gradient of dilated depth-wise convolutions, which LR-ASPP has,
            # reads memory that was never written where bfloat16 lies channels last.
            found.append(
                "--channels-last with --precision bf16-mixed gives wrong gradients on CPU, by an error of "
                "PyTorch's; leave out one of the two (32-true with --channels-last is the fastest)"
            )
        return found
