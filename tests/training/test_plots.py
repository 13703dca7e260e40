from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from mgic_geo.datasets import PointClouds
from mgic_geo.training import (
    MIOU,
    Evaluation,
    plot_confusion,
    plot_curves,
    plot_gallery,
    plot_images,
    plots,
)


def ink(path: Path) -> float:
    """Share of the picture that is not white."""
    return float((imread(path)[..., :3].min(-1) < 0.98).mean())


@pytest.fixture
def result() -> Evaluation:
    generator = torch.Generator().manual_seed(0)
    return Evaluation(
        torch.rand(9, 3, generator=generator).softmax(1), torch.arange(9) % 3, ("chair", "sofa", "bed")
    )


def test_curves_with_and_without_validation(tmp_path: Path) -> None:
    rows = [{"epoch": e, "train_loss": 1 / e, "train_accuracy": 1 - 1 / e} for e in (1.0, 2.0)]
    plot_curves(tmp_path / "a.png", rows, 0.9)
    plot_curves(tmp_path / "b.png", [r | {"val_loss": 1.0, "val_accuracy": 0.0} for r in rows], 0.9)
    assert 0.01 < ink(tmp_path / "a.png") < ink(tmp_path / "b.png")


def test_the_losses_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = list[Figure]()
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    figures = {"train_loss": 1.0, "val_loss": 0.9, "train_accuracy": 0.5, "val_accuracy": 0.5}
    plot_curves(tmp_path / "a.png", [{"epoch": 1.0} | figures], 0.9)
    legends = [axes.get_legend_handles_labels()[1][:2] for axes in drawn[0].axes]
    assert legends == [["training, as minimised", "validation"], ["training", "validation"]]


def test_curves_of_another_measure(tmp_path: Path) -> None:
    rows = [{"epoch": e, "train_loss": 1 / e, "train_miou": 1 - 1 / e} for e in (1.0, 2.0)]
    plot_curves(tmp_path / "a.png", rows, 0.9, MIOU, "val")
    assert ink(tmp_path / "a.png") > 0.01


def test_confusion(tmp_path: Path, result: Evaluation) -> None:
    plot_confusion(tmp_path / "a.png", result)
    assert ink(tmp_path / "a.png") > 0.1


@pytest.mark.parametrize("size", [1, 9])
def test_gallery_of_any_size(
    tmp_path: Path, result: Evaluation, make_clouds: Callable[..., PointClouds], size: int
) -> None:
    part = Evaluation(result.probabilities[:size], result.labels[:size], result.classes)
    made = make_clouds(size)
    plot_gallery(tmp_path / "a.png", made.points, made.names, part, columns=4, rows=2)
    assert ink(tmp_path / "a.png") > 0.005
    assert np.isfinite(imread(tmp_path / "a.png")).all()


def test_a_confusion_of_many_classes_stays_small(tmp_path: Path) -> None:
    names = tuple(f"class {i}" for i in range(300))
    plot_confusion(tmp_path / "a.png", Evaluation(torch.eye(300), torch.arange(300), names))
    assert max(imread(tmp_path / "a.png").shape) < 2500


@pytest.mark.parametrize("size", [1, 9])
def test_gallery_of_images(tmp_path: Path, result: Evaluation, size: int) -> None:
    part = Evaluation(result.probabilities[:size], result.labels[:size], result.classes)
    plot_images(tmp_path / "a.png", lambda index: torch.full((3, 8, 8), 9 * index).byte(), str, part, 4, 2)
    assert ink(tmp_path / "a.png") > 0.05


@pytest.mark.parametrize("name", [r"$\alpha_$_x$y$", "$5", r"\$a$", "a_b"])
def test_names_are_drawn_as_they_are(
    tmp_path: Path, make_clouds: Callable[..., PointClouds], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    drawn = list[str]()
    draw = RendererAgg.draw_text

    def noted(self: RendererAgg, gc: Any, x: float, y: float, text: str, *rest: Any, **more: Any) -> None:
        drawn.append(text)
        draw(self, gc, x, y, text, *rest, **more)

    monkeypatch.setattr(RendererAgg, "draw_text", noted)
    result = Evaluation(torch.eye(2), torch.arange(2), (name, "b"))
    plot_confusion(tmp_path / "a.png", result)
    assert drawn.count(name) == 2  # of the row and of the column
    drawn.clear()
    plot_gallery(tmp_path / "b.png", make_clouds(2).points, (name, name), result)
    assert f"true: {name} 100.0%" in drawn
    assert drawn.count(name) == 2
    drawn.clear()
    plot_images(tmp_path / "c.png", lambda index: torch.zeros(3, 8, 8).byte(), lambda index: name, result)
    assert f"true: {name} 100.0%" in drawn
    assert drawn.count(name) == 2
