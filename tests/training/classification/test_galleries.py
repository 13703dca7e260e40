from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from mgic_geo.datasets import PointClouds
from mgic_geo.training.classification import galleries
from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.classification.galleries import plot_gallery, plot_images


@pytest.mark.parametrize("size", [1, 9])
def test_gallery_of_any_size(
    tmp_path: Path,
    ink: Callable[[Path], float],
    result: Evaluation,
    make_clouds: Callable[..., PointClouds],
    size: int,
) -> None:
    part = Evaluation(result.probabilities[:size], result.labels[:size], result.classes)
    made = make_clouds(size)
    plot_gallery(tmp_path / "a.png", made.points, made.names, part, columns=4, rows=2)
    assert ink(tmp_path / "a.png") > 0.005
    assert np.isfinite(imread(tmp_path / "a.png")).all()


@pytest.mark.parametrize("size", [1, 9])
def test_gallery_of_images(
    tmp_path: Path, ink: Callable[[Path], float], result: Evaluation, size: int
) -> None:
    part = Evaluation(result.probabilities[:size], result.labels[:size], result.classes)
    plot_images(tmp_path / "a.png", lambda index: torch.full((3, 8, 8), 9 * index).byte(), str, part, 4, 2)
    assert ink(tmp_path / "a.png") > 0.05


@pytest.mark.parametrize("name", ["dog", "aquarium_fish", "a name of twenty chars", "name " * 20])
def test_titles_keep_to_their_panels(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = list[Figure]()
    monkeypatch.setattr(galleries, "save_figure", lambda figure, path: drawn.append(figure))
    probabilities = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    result = Evaluation(probabilities, torch.tensor([0, 1, 1]), (f"1 {name}", f"2 {name}"))
    file = f"{name}/{'1' * 60}.png"
    plot_images(
        tmp_path / "a.png", lambda index: torch.full((3, 8, 8), 9 * index).byte(), lambda _: file, result
    )
    (figure,) = drawn
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title().splitlines()[0][:7] for axes in panels] == ["true: 1", "true: 2", "true: 2"]
    extents = [axes.title.get_window_extent() for axes in panels]
    assert extents[0].x0 >= 0
    assert all(left.x1 < right.x0 for left, right in pairwise(extents))
    assert (panels[0].title.get_fontsize() == 9) == (name == "dog")
    names = [axes.texts[0].get_window_extent() for axes in panels]
    assert all(axes.texts[0].get_text() == f"…{'1' * 21}.png" for axes in panels)
    assert all(left.x1 < right.x0 for left, right in pairwise(names))
