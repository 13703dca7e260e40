"""Cross-entropy over pixels: weighted classes, only the hardest pixels, and none that carry no label."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgic_geo.datasets import IGNORE


class SegmentationLoss(nn.Module):
    """The cross-entropy of the pixels that count.

    With weights w, the loss of a batch is Σ w_y ℓ / Σ w_y over its pixels, y being a pixel's class and ℓ its
    cross-entropy (as ``F.cross_entropy`` has it, smoothing included). Pixels labelled ``IGNORE`` are left
    out; the loss of a batch that has no others is 0. Nothing here makes a GPU wait.

    Args:
        weight: (C,) weights of the classes; None: all equal.
        hardest: Share of the labelled pixels of a batch that count, in 0 … 1: those whose true class seems
            least probable, and the first of equal ones. 1: all.
        label_smoothing: Share of the target spread evenly over all classes.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, hardest: float = 1.0, label_smoothing: float = 0.0):
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.hardest, self.label_smoothing = hardest, label_smoothing

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: (B, C, H, W).
            masks: (B, H, W) int64, classes or ``IGNORE``.
        """
        if self.hardest < 1:
            masks = hardest_pixels(logits, masks, self.hardest)
        total = F.cross_entropy(
            logits,
            masks,
            self.weight,
            ignore_index=IGNORE,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        labelled = masks != IGNORE
        if self.weight is None:
            return total / labelled.sum().clamp(min=1)
        weights = self.weight[torch.where(labelled, masks, 0)] * labelled
        return total / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


@torch.no_grad()
def hardest_pixels(logits: Tensor, masks: Tensor, share: float) -> Tensor:
    """Return ``masks`` with ``IGNORE`` in place of all but the hardest ``share`` of the labelled pixels.

    Args:
        logits: (B, C, H, W).
        masks: (B, H, W) int64, classes or ``IGNORE``.
        share: Of the labelled pixels of the batch, in 0 … 1; rounded to pixels, but one at least.
    """
    hardness = F.cross_entropy(logits, masks, ignore_index=IGNORE, reduction="none").flatten()
    labels = masks.flatten()
    hardness = torch.where(labels == IGNORE, -1.0, hardness)  # behind all others, whose loss is 0 or more
    order = hardness.argsort(descending=True, stable=True)
    kept = (share * (labels != IGNORE).sum()).round().clamp(min=1)
    places = torch.arange(len(order), device=order.device)
    chosen = torch.where(places < kept, labels[order], IGNORE)
    return torch.empty_like(labels).scatter_(0, order, chosen).view_as(masks)
