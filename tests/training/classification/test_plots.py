from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.image import imread

from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.classification.plots import plot_confusion


def test_confusion(tmp_path: Path, ink: Callable[[Path], float], result: Evaluation) -> None:
    plot_confusion(tmp_path / "a.png", result)
    assert ink(tmp_path / "a.png") > 0.1


def test_a_confusion_of_many_classes_stays_small(tmp_path: Path) -> None:
    names = tuple(f"class {i}" for i in range(300))
    plot_confusion(tmp_path / "a.png", Evaluation(torch.eye(300), torch.arange(300), names))
    assert max(imread(tmp_path / "a.png").shape) < 2500
