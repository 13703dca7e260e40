import pytest
import torch

from mgic_geo.training.segmentation.class_weights import class_weights

# Three images of 10 labelled pixels, four classes: the third is in one image only, the last in none.
COUNTS = torch.tensor([[8, 2, 0, 0], [8, 2, 0, 0], [8, 1, 1, 0]])


def test_median_frequency_balancing_by_hand() -> None:
    frequencies = [24 / 30, 5 / 30, 1 / 10]
    expected = [(5 / 30) / frequency for frequency in frequencies] + [1.0]
    weights = class_weights(COUNTS, "median")
    assert weights is not None
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx(expected)


def test_roots_are_gentler_and_none_is_none() -> None:
    median, root = class_weights(COUNTS, "median"), class_weights(COUNTS, "root")
    assert median is not None
    assert root is not None
    torch.testing.assert_close(root.square(), median)
    assert class_weights(COUNTS, "none") is None
