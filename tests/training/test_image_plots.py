from itertools import pairwise
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from mgic_geo.training import Evaluation, image_plots, plot_images


@pytest.mark.parametrize("name", ["dog", "aquarium_fish", "a name of twenty chars", "name " * 20])
def test_titles_keep_to_their_panels(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = list[Figure]()
    monkeypatch.setattr(image_plots, "save_figure", lambda figure, path: drawn.append(figure))
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
