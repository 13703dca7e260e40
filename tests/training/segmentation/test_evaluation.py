import math

import pytest
import torch
from oracles import intersection_over_union
from torch import Tensor, nn
from torch.nn import functional as F

from mgic_geo.datasets import IGNORE
from mgic_geo.training.segmentation.evaluation import SegmentationEvaluation, evaluate_segmenter

NAMES = ("sky", "road", "car")


def split(size: int = 5) -> tuple[Tensor, Tensor]:
    """Images whose three colours are the logits of three classes, and masks without class 2."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, 4, 6, generator=generator)
    masks = torch.randint(2, (size, 4, 6), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = IGNORE
    return images, masks


def evaluated(images: Tensor, masks: Tensor, batch: int = 2) -> SegmentationEvaluation:
    batches = list(zip(images.split(batch), masks.split(batch), strict=True))
    return evaluate_segmenter(nn.Dropout(0.99).train(), batches, NAMES)


def test_it_streams_what_the_whole_split_gives_in_evaluation_mode() -> None:
    images, masks = split()
    result, answers = evaluated(images, masks), images.argmax(1)
    assert result.class_iou.tolist() == pytest.approx(intersection_over_union(answers, masks, 3))
    for index, (answer, mask) in enumerate(zip(answers, masks, strict=True)):
        ious = [value for value in intersection_over_union(answer, mask, 3) if value is not None]
        assert float(result.image_miou[index]) == pytest.approx(sum(ious) / len(ious))
    counted = masks != IGNORE
    right = (answers == masks) & counted
    assert result.accuracy == pytest.approx(float(right.sum() / counted.sum()))
    shares = [float(right[masks == c].float().mean()) for c in (0, 1)]  # class 2 has no pixels
    assert result.class_accuracy == pytest.approx(sum(shares) / 2)
    assert torch.equal(evaluated(images, masks, batch=5).confusions, result.confusions)


def test_worst_images_come_first_and_those_without_labels_last() -> None:
    masks = torch.tensor([[[0, 0]], [[IGNORE, IGNORE]], [[0, 1]], [[1, 1]]])
    images = F.one_hot(torch.zeros(4, 1, 2).long(), 3).movedim(-1, 1).float()
    assert evaluated(images, masks).worst_first().tolist() == [3, 2, 0, 1]


def test_the_standard_error_is_that_of_drawn_images() -> None:
    perfect, useless = torch.tensor([[5, 0], [0, 5]]), torch.tensor([[0, 5], [5, 0]])
    alike = SegmentationEvaluation(perfect.repeat(8, 1, 1), NAMES[:2])
    assert alike.standard_error() == 0
    mixed = SegmentationEvaluation(torch.stack([perfect, useless] * 50), NAMES[:2])
    # With p of the images right, each class has IoU p / (2 − p); its slope at 1/2 is 8/9.
    assert mixed.standard_error() == pytest.approx(8 / 9 * math.sqrt(0.25 / 100), rel=0.1)


def test_images_without_a_label_do_not_count_in_the_standard_error() -> None:
    counts = torch.tensor([[[5, 1], [0, 4]], [[2, 2], [1, 5]], [[0, 0], [0, 0]]])
    whole = SegmentationEvaluation(counts[:2], NAMES[:2]).standard_error()
    assert 0 < whole < 1
    assert SegmentationEvaluation(counts, NAMES[:2]).standard_error() == whole
    assert math.isnan(SegmentationEvaluation(counts[1:], NAMES[:2]).standard_error())  # one image: no spread


def test_what_cannot_be_judged_is_an_error() -> None:
    images, masks = split()
    with pytest.raises(ValueError, match="lower --lr"):
        evaluated(images / 0, masks)
    with pytest.raises(ValueError, match="no pixel of the images has a label"):
        evaluated(images, masks.fill_(IGNORE))
