from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure

from mgic_geo.datasets import PointClouds
from mgic_geo.training import plots
from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.classification.galleries import plot_gallery, plot_images
from mgic_geo.training.classification.plots import plot_confusion
from mgic_geo.training.plots import plot_curves
from mgic_geo.training.segmentation.segmenter import MIOU


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The pictures, which are kept instead of written."""
    kept = list[Figure]()
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: kept.append(figure))
    return kept


def test_curves_with_and_without_validation(tmp_path: Path, ink: Callable[[Path], float]) -> None:
    rows = [{"epoch": e, "train_loss": 1 / e, "train_accuracy": 1 - 1 / e} for e in (1.0, 2.0)]
    plot_curves(tmp_path / "a.png", rows, 0.9)
    plot_curves(tmp_path / "b.png", [r | {"val_loss": 1.0, "val_accuracy": 0.0} for r in rows], 0.9)
    assert 0.01 < ink(tmp_path / "a.png") < ink(tmp_path / "b.png")


def test_the_losses_are_told_apart(drawn: list[Figure]) -> None:
    figures = {"train_loss": 1.0, "val_loss": 0.9, "train_accuracy": 0.5, "val_accuracy": 0.5}
    plot_curves(Path(), [{"epoch": 1.0} | figures], 0.9)
    legends = [axes.get_legend_handles_labels()[1][:2] for axes in drawn[0].axes]
    assert legends == [["training, as minimised", "validation"], ["training", "validation"]]


def test_curves_of_another_measure(tmp_path: Path, ink: Callable[[Path], float]) -> None:
    rows = [{"epoch": e, "train_loss": 1 / e, "train_miou": 1 - 1 / e} for e in (1.0, 2.0)]
    plot_curves(tmp_path / "a.png", rows, 0.9, MIOU, "val")
    assert ink(tmp_path / "a.png") > 0.01


@pytest.mark.parametrize("step", [0.005, 0.025, 0.2])
def test_the_axis_of_the_measure_is_labelled_rightly(drawn: list[Figure], step: float) -> None:
    rows = [{"epoch": e, "train_loss": 1.0, "train_accuracy": 0.3 + step * e} for e in (0.0, 1.0, 2.0)]
    plot_curves(Path(), rows, 0.3)
    drawn[0].draw_without_rendering()
    axis = drawn[0].axes[1].yaxis
    labels = [float(label.get_text().removesuffix("%")) for label in axis.get_ticklabels()]
    assert labels == pytest.approx([100 * tick for tick in axis.get_ticklocs()], abs=1e-6)


@pytest.mark.parametrize(("worst", "top"), [(10_740.0, 3.75), (4.0, None)])
def test_one_bad_validation_does_not_flatten_the_losses(
    drawn: list[Figure], worst: float, top: float | None
) -> None:
    losses = [2.5, worst, 1.5, 1.0]
    rows = [
        {"epoch": float(e), "train_loss": 1 / (e + 1), "val_loss": loss, "train_accuracy": 0.5}
        for e, loss in enumerate(losses)
    ]
    plot_curves(Path(), rows, 0.9)
    axes = drawn[0].axes[0]
    if top is None:
        assert axes.get_ylim()[1] > worst
    else:
        assert axes.get_ylim()[1] == top
        assert "validation, up to 10,740" in axes.get_legend_handles_labels()[1]


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


def test_the_suffix_says_of_what_kind_a_picture_is(tmp_path: Path):
    for name, start in (("a.png", b"\x89PNG"), ("b.pdf", b"%PDF"), ("c.svg", b"<?xml"), ("d", b"\x89PNG")):
        plots.save_figure(Figure(), tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
