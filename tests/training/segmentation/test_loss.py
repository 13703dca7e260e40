import pytest
import torch
from oracles import segmentation_loss
from torch import Tensor

from mgic_geo.datasets import IGNORE
from mgic_geo.training.segmentation.loss import SegmentationLoss, hardest_pixels


def batch(seed: int = 0, labelled: float = 0.8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 5, 3, generator=generator, dtype=torch.float64)
    masks = torch.randint(4, (2, 5, 3), generator=generator)
    masks[torch.rand(2, 5, 3, generator=generator) >= labelled] = IGNORE
    return logits.requires_grad_(), masks


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("hardest", [1.0, 0.37])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss_and_gradient_are_those_of_the_slow_twin(
    weighted: bool, hardest: float, smoothing: float
) -> None:
    logits, masks = batch()
    weight = torch.tensor([0.2, 3.0, 1.0, 0.0], dtype=torch.float64) if weighted else None
    ours = SegmentationLoss(weight, hardest, smoothing)(logits, masks)
    slow = segmentation_loss(logits, masks, weight, hardest, smoothing)
    torch.testing.assert_close(ours, slow)
    ours, slow = (torch.autograd.grad(loss, logits)[0] for loss in (ours, slow))
    torch.testing.assert_close(ours, slow)
    assert ours.any()


@pytest.mark.parametrize("hardest", [1.0, 0.3])
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)])
def test_a_batch_without_labels_costs_nothing(weight: Tensor | None, hardest: float) -> None:
    logits, masks = batch(labelled=0.0)
    loss = SegmentationLoss(weight, hardest, 0.1)(logits, masks)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0
    assert not gradient.any()
    assert gradient.isfinite().all()


def test_pixels_without_label_get_no_gradient() -> None:
    logits, masks = batch()
    (gradient,) = torch.autograd.grad(SegmentationLoss(hardest=0.9)(logits, masks), logits)
    assert not gradient.movedim(1, -1)[masks == IGNORE].any()


def test_hardest_pixels_are_counted_over_the_batch_and_ties_go_to_the_first() -> None:
    logits = torch.zeros(2, 2, 1, 4)
    masks = torch.tensor([[[0, IGNORE, 1, 0]], [[1, 1, IGNORE, 0]]])
    logits[1, 0, 0, 0] = 5  # sure of class 0, where 1 is right
    logits[0, 0, 0, 0] = 5  # sure, and right
    kept = hardest_pixels(logits, masks, 0.5)
    assert kept.flatten().tolist() == [IGNORE, IGNORE, 1, 0, 1, IGNORE, IGNORE, IGNORE]
    assert (hardest_pixels(logits, masks, 1e-6) != IGNORE).sum() == 1
