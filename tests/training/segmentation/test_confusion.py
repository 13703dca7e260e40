import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import confusion, intersection_over_union

from mgic_geo.datasets import IGNORE
from mgic_geo.training.segmentation.confusion import class_iou, confusion_matrices, mean_iou


@given(seed=st.integers(0, 2**31), classes=st.integers(1, 5), used=st.integers(1, 5))
def test_counts_and_ious_are_those_of_the_slow_twins(seed: int, classes: int, used: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    used = min(used, classes)  # the other classes occur nowhere
    predictions, masks = torch.randint(used, (2, 3, 4, 2), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.3] = IGNORE
    counts = confusion_matrices(predictions, masks, classes)
    assert counts.tolist() == [confusion(p, m, classes) for p, m in zip(predictions, masks, strict=True)]
    expected = intersection_over_union(predictions, masks, classes)
    found = class_iou(counts.sum(0)).tolist()
    assert [None if math.isnan(value) else value for value in found] == pytest.approx(expected)
    present = [value for value in expected if value is not None]
    if present:
        assert float(mean_iou(counts.sum(0))) == pytest.approx(sum(present) / len(present))


def test_figures_by_hand() -> None:
    counts = torch.tensor([[6, 2, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    iou = class_iou(counts)
    torch.testing.assert_close(iou[:2], torch.tensor([6 / 8, 4 / 6]))
    assert iou[2:].isnan().all()
    assert float(mean_iou(counts)) == pytest.approx((6 / 8 + 4 / 6) / 2)


def test_a_class_that_is_only_predicted_counts_as_missed() -> None:
    counts = confusion_matrices(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]), 3)
    assert class_iou(counts)[0, :2].tolist() == [0.5, 0.0]
    assert float(mean_iou(counts)) == 0.25


def test_nothing_to_count_is_no_number() -> None:
    counts = confusion_matrices(torch.zeros(1, 2, 2).long(), torch.full((1, 2, 2), IGNORE), 3)
    assert not counts.any()
    assert mean_iou(counts).isnan().all()
