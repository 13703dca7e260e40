from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from mgic_geo.datasets import IGNORE
from mgic_geo.training.segmentation import plots
from mgic_geo.training.segmentation.evaluation import SegmentationEvaluation
from mgic_geo.training.segmentation.plots import OPACITY, laid_over, plot_iou, plot_segmentations

PALETTE = ((255, 0, 0), (0, 0, 255), (0, 255, 0))


@pytest.fixture
def result() -> SegmentationEvaluation:
    counts = torch.randint(1, 9, (4, 3, 3), generator=torch.Generator().manual_seed(0))
    counts[:, 2] = counts[:, :, 2] = 0  # a class that does not occur
    return SegmentationEvaluation(counts, ("sky", "road", "car"))


def ink(path: Path) -> float:
    """Share of the picture that is not white."""
    return float((imread(path)[..., :3].min(-1) < 0.98).mean())


def test_iou(tmp_path: Path, result: SegmentationEvaluation) -> None:
    plot_iou(tmp_path / "a.png", result, PALETTE)
    assert ink(tmp_path / "a.png") > 0.1


def test_worst_images_are_asked_for_in_their_order(tmp_path: Path, result: SegmentationEvaluation) -> None:
    asked = []

    def look(index: int) -> tuple[torch.Tensor, ...]:
        asked.append(index)
        mask = torch.tensor([[0, 1, IGNORE], [1, 1, 2]], dtype=torch.uint8)
        return torch.full((3, 2, 3), 90, dtype=torch.uint8), mask, mask.long().clamp(max=2)

    plot_segmentations(tmp_path / "a.png", look, str, result, PALETTE, rows=3)
    assert asked == result.worst_first()[:3].tolist()
    assert ink(tmp_path / "a.png") > 0.1


def test_an_image_without_a_label_has_no_score(
    tmp_path: Path, result: SegmentationEvaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[Figure]()
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    unlabelled = torch.cat([result.confusions[:1], torch.zeros_like(result.confusions[:1])])
    result = SegmentationEvaluation(unlabelled, result.classes)
    blank = torch.zeros(3, 2, 3, dtype=torch.uint8), torch.zeros(2, 3).byte(), torch.zeros(2, 3).long()
    plot_segmentations(tmp_path / "a.png", lambda index: blank, str, result, PALETTE)
    assert drawn[0].axes[-1].get_title() == "prediction, mean IoU –"


def test_names_are_drawn_as_they_are(tmp_path: Path, result: SegmentationEvaluation) -> None:
    named = SegmentationEvaluation(result.confusions, (r"$\alpha_$_x$y$", "$5", "a_b"))
    plot_iou(tmp_path / "a.png", named, PALETTE)
    blank = torch.zeros(3, 2, 3, dtype=torch.uint8), torch.zeros(2, 3).byte(), torch.zeros(2, 3).long()
    plot_segmentations(tmp_path / "b.png", lambda index: blank, lambda index: r"$\a_$.png", named, PALETTE)
    assert min(ink(tmp_path / "a.png"), ink(tmp_path / "b.png")) > 0.05


def test_classes_are_laid_over_and_pixels_without_label_are_hatched() -> None:
    pixels = np.full((16, 16, 3), 100, np.uint8)
    labels = np.zeros((16, 16), np.uint8)
    labels[8:] = IGNORE
    drawn = laid_over(pixels, labels, PALETTE)
    assert drawn[0, 0].tolist() == [
        round(OPACITY * 255 + (1 - OPACITY) * 100),
        *[round((1 - OPACITY) * 100)] * 2,
    ]
    assert sorted(np.unique(drawn[8:])) == [85, 187]
    assert (drawn[8:, :, 0] == drawn[8:, :, 1]).all()
