from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from mgic_geo.paper import scaling_plot
from mgic_geo.paper.scaling_plot import ScalingCurve, plot_scaling
from mgic_geo.scaling import Exponents, Scaling, ScalingRow


def curve(block: str, kind: str, power: int, timed: bool = True) -> ScalingCurve:
    rows = tuple(ScalingRow(w, w**power, 3 * w**power, float(w) if timed else None) for w in (64, 128, 256))
    return ScalingCurve(
        block, kind, Scaling(rows, Exponents(power, power, 1.25 if timed else None), 2, "cpu")
    )


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """What was drawn."""
    drawn: list[Figure] = []
    save = scaling_plot.save_figure
    monkeypatch.setattr(scaling_plot, "save_figure", lambda f, p: drawn.append(f) or save(f, p))
    return drawn


def test_three_panels_with_the_exponents(tmp_path: Path, figures: list[Figure]) -> None:
    plot_scaling(tmp_path / "a.png", [curve("a", "dense", 2), curve("a", "MGIC", 1), curve("b", "MGIC", 1)])
    assert float((imread(tmp_path / "a.png")[..., :3].min(-1) < 0.98).mean()) > 0.01

    def labels(axes: Axes) -> list[str]:
        return [text.get_text() for text in axes.get_legend().get_texts()]

    parameters, multiply_adds, milliseconds = figures[0].axes
    assert labels(parameters) == labels(multiply_adds) == ["1.00  MGIC, a", "1.00  MGIC, b", "2.00  dense, a"]
    assert labels(milliseconds)[0] == "1.25  MGIC, a"
    assert list(multiply_adds.lines[2].get_ydata()) == [3 * w * w for w in (64, 128, 256)]
    assert "2 threads" in figures[0].get_suptitle()


def test_without_times_no_panel_is_empty(tmp_path: Path, figures: list[Figure]) -> None:
    plot_scaling(tmp_path / "a.png", [curve("a", "MGIC", 1, timed=False)])
    assert len(figures[0].axes) == 2
    assert "time" not in figures[0].get_suptitle()
