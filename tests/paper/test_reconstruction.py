"""Codes by transfers alone: the paper's Table 1 on features made here, with the optimum known."""

from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from mgic_geo import ChannelHierarchy
from mgic_geo.paper.figure2 import Reconstruction, mosaic, plot_reconstructions
from mgic_geo.paper.reconstruction import Moments, TransferAutoencoder, best_code, judge_code, learn_code


@pytest.fixture(scope="module")
def correlated() -> torch.Tensor:
    """Features (N, 64) of which all channels share a few causes, of falling strength."""
    generator = torch.Generator().manual_seed(0)
    causes = torch.randn(2000, 40, generator=generator) * 0.9 ** torch.arange(40)
    return causes @ torch.randn(40, 64, generator=generator) + torch.randn(64, generator=generator)


@pytest.mark.parametrize(("group_size", "parameters"), [(32, 3328), (16, 1792), (8, 896), (4, 448)])
def test_parameters_of_the_papers_table_1(group_size: int, parameters: int) -> None:
    code = TransferAutoencoder(ChannelHierarchy(64, group_size, 8))
    assert sum(weight.numel() for weight in code.parameters()) == parameters
    features = torch.randn(2, 5, 64)
    assert code.encode(features).shape == (2, 5, 8)
    assert code(features).shape == features.shape


def test_moments_tell_the_error_of_any_code(correlated: torch.Tensor) -> None:
    code = TransferAutoencoder(ChannelHierarchy(64, 8, 8)).double()
    features = correlated.double()
    moments = Moments.of(features.split(300))
    direct = (code(features) - features).square().mean()
    torch.testing.assert_close(moments.mse(code(torch.eye(64).double())), direct)
    assert moments.variance == pytest.approx(float(features.var(0, correction=0).mean()))


def test_averages_keep_what_is_equal_within_groups() -> None:
    code = TransferAutoencoder(ChannelHierarchy(64, 4, 8), init="average")
    features = torch.randn(10, 4).repeat_interleave(16, 1)  # groups of 4 link 16 channels on three levels
    torch.testing.assert_close(code(features), features)


def test_what_lies_in_a_codes_span_comes_back() -> None:
    hierarchy = ChannelHierarchy(32, 8, 8)
    torch.manual_seed(0)
    decoder = TransferAutoencoder(hierarchy)
    for prolongation in decoder.prolongations:
        torch.nn.init.normal_(prolongation.map.weight)  # type: ignore[union-attr]
    with torch.no_grad():
        moments = Moments.of([decoder.decode(torch.randn(500, 8))])
    result = judge_code(*learn_code(hierarchy, moments, steps=1000), moments, moments)
    assert result.mse_at_start > 0.1 * result.variance
    assert result.mse_of_best_code < 1e-9 * result.variance
    assert result.mse < 1e-4 * result.variance


def test_the_error_grows_as_groups_shrink(correlated: torch.Tensor) -> None:
    training, held_out = Moments.of([correlated[:1500]]), Moments.of([correlated[1500:]])
    results = []
    for group_size in (16, 8, 4):
        start, learned = learn_code(ChannelHierarchy(64, group_size, 8), training, steps=500)
        results.append(judge_code(start, learned, training, held_out))
    for result in results:
        assert result.converged
        assert result.training_mse >= result.training_mse_of_best_code * (1 - 1e-9)
        assert result.mse < 0.7 * result.mse_at_start
        assert result.variance == held_out.variance
    assert results[0].mse < 0.9 * results[1].mse < 0.9**2 * results[2].mse


def test_groups_above_twice_the_coarsest_level_add_nothing(correlated: torch.Tensor) -> None:
    # Groups of 16 already link all channels and can hold the 8 best directions: principal components.
    moments = Moments.of([correlated])
    for group_size in (64, 32, 16):
        code = best_code(ChannelHierarchy(64, group_size, 8), moments)
        leading = torch.linalg.eigvalsh(moments.second)[:-8].sum() / 64
        torch.testing.assert_close(moments.mse(code), leading)


def test_learning_depends_on_its_seed_only(correlated: torch.Tensor) -> None:
    hierarchy, moments = ChannelHierarchy(64, 8, 8), Moments.of([correlated])
    state = torch.get_rng_state()
    runs = [learn_code(hierarchy, moments, steps=3, seed=seed)[1] for seed in (0, 0, 1)]
    first, again, other = (run.restrictions[0].map.weight for run in runs)  # type: ignore[union-attr]
    assert torch.equal(first, again)  # type: ignore[arg-type]
    assert not torch.equal(first, other)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)
    # A few steps are not enough, and the result says so.
    assert not judge_code(*learn_code(hierarchy, moments, steps=3), moments, moments).converged


@pytest.mark.parametrize("sizes", [(24, 9, 8), (7, 3, 2), (12, 1, 5)])
def test_the_best_code_bounds_groups_that_overlap(sizes: tuple[int, int, int]) -> None:
    # Where groups of one level straddle those of another, the form is a bound, and still one of low rank.
    plan = ChannelHierarchy(*sizes)
    torch.manual_seed(0)
    moments = Moments.of([torch.randn(400, plan.channels) @ torch.randn(plan.channels, plan.channels)])
    result = judge_code(*learn_code(plan, moments, steps=300), moments, moments)
    assert result.mse_of_best_code <= result.mse
    assert int(torch.linalg.matrix_rank(best_code(plan, moments))) <= plan.widths[-1]


def test_features_that_cannot_be_encoded() -> None:
    with pytest.raises(ValueError, match="8 channels are not coarsened to coarse_size=8"):
        TransferAutoencoder(ChannelHierarchy(8, 4, 8))
    with pytest.raises(ValueError, match="not finite"):
        Moments.of([torch.full((3, 8), torch.inf)])
    with pytest.raises(ValueError, match="the same at all pixels"):
        Moments.of([torch.zeros(3, 8)])


def test_a_mosaic_has_every_map_in_its_place() -> None:
    maps = torch.arange(5.0).expand(4, 3, 5)
    picture = mosaic(maps)
    assert picture.shape == (9, 11)
    assert picture[0, 0] == 0
    assert picture[3, 10] == 2
    assert picture[5, 4] == 4
    assert picture[:, 3].isnan().all()
    assert picture[5:, 8:].isnan().all()


def test_the_picture(tmp_path: Path) -> None:
    image, features = torch.zeros(3, 8, 8).byte(), torch.rand(8, 8, 16)
    shown = [Reconstruction(title, torch.rand(8, 8, 4), features) for title in "ab"]
    plot_reconstructions(tmp_path / "a.png", image, features, shown)
    pixels = imread(tmp_path / "a.png")[..., :3]
    assert float((pixels.min(-1) < 0.98).mean()) > 0.3
