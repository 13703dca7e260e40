"""The segmenter as a Lightning module: loss and mean intersection over union."""

from __future__ import annotations

from torch import Tensor, nn

from mgic_geo.training.learner import Learner, Measure
from mgic_geo.training.optimizers import OptimizerConfig
from mgic_geo.training.segmentation.confusion import confusion_matrices, mean_iou
from mgic_geo.training.segmentation.loss import SegmentationLoss

MIOU = Measure("miou", "mIoU", "Mean IoU", "intersection over union")


class Segmenter(Learner[OptimizerConfig]):
    """Trains a model that maps images (B, 3, H, W) to logits (B, C, H, W) with cross-entropy over pixels.

    The training loader must have ``set_epoch``. Logged for each epoch, over all ranks: ``train_loss``,
    ``train_miou`` (of all pixels that carry a label, of the batches as they were augmented) and, with
    validation, ``val_loss`` and ``val_miou``.

    Args:
        model: The model.
        num_classes: C.
        config: Loss and optimiser.
        weight: (C,) weights of the classes in the loss; None: all equal.
        hardest: Share of the labelled pixels of a batch that count in the loss, the hardest; 1: all.
        seed: With the epoch and the rank it decides every random number the model draws, as for dropout.
    """

    measure = MIOU

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        config: OptimizerConfig,
        weight: Tensor | None = None,
        hardest: float = 1.0,
        seed: int = 0,
    ):
        super().__init__(model, config, (num_classes, num_classes), seed)
        self.criterion = SegmentationLoss(weight, hardest, config.label_smoothing)
        self.plain = SegmentationLoss()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch; see :class:`SegmentationLoss`."""
        return self.criterion(logits, targets)

    def cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of the labelled pixels, all alike; 0 if there are none."""
        return self.plain(logits, targets)

    def count(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the batch's confusion matrix (C, C); rows are true classes."""
        return confusion_matrices(logits.argmax(1), targets, logits.shape[1]).sum(0)

    @staticmethod
    def score(counts: Tensor) -> Tensor:
        """Return the mean intersection over union."""
        return mean_iou(counts)
