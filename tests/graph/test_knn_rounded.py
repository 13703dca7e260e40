import compiled
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgic_geo import knn
from mgic_geo.graph import knn_rounded
from mgic_geo.native import has_vnni

pytestmark = pytest.mark.skipif(not has_vnni(), reason="this processor has no dot products of integers")


def points(clouds, count, channels, seed=0):
    return torch.randn(clouds, count, channels, generator=torch.Generator().manual_seed(seed))


def assert_exact(x, k, loop=True):
    """Against a full sort in float64."""
    assert knn_rounded.fits(x, k)
    table = knn_rounded.neighbors(x, k, loop)
    assert table is not None
    assert table.shape == (*x.shape[:2], k)
    assert 0 <= int(table.min()) <= int(table.max()) < x.size(1)
    own = torch.arange(x.size(1)).view(-1, 1)
    for cloud, rows in zip(x, table, strict=True):
        if not loop:
            assert not bool((rows == own).any())
            rows = torch.cat([own, rows], 1)
        oracles.assert_nearest(cloud, rows)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([128, 129, 159, 160, 191, 192, 193, 255, 256, 300, 513]),
    st.sampled_from([1, 2, 3, 4, 5, 15, 16, 17, 32, 48, 65, 130]), st.integers(1, 31), st.booleans(),
    st.sampled_from([0.0, 1.0, 1e3]), st.sampled_from([1e-15, 1.0, 1e12]), st.sampled_from([1, 2, 3]),
)  # fmt: skip
def test_equals_a_full_sort(count, channels, k, loop, mean, scale, threads):
    with compiled.threads(threads):
        assert_exact(scale * (mean + points(2, count, channels, count)), k, loop)


@pytest.mark.parametrize(("count", "channels"), [(1024, 2), (4097, 3), (16384, 3), (9000, 64), (20001, 8)])
def test_large_clouds(count, channels):
    """Some of their points, against a full sort."""
    x, rows = points(1, count, channels), torch.tensor([0, 1, 31, 32, 1000, count - 2, count - 1])
    assert knn_rounded.fits(x, 20)
    table = knn_rounded.neighbors(x, 20, True)[0, rows]
    distance = (x[0, rows].double().unsqueeze(1) - x.double()).square().sum(-1)
    distance[torch.arange(len(rows)), rows] = -1
    torch.testing.assert_close(distance.gather(1, table), distance.sort(1).values[:, :20], rtol=1e-5, atol=0)
    assert torch.equal(table[:, 0], rows)
    assert bool((table.sort(1).values.diff(dim=1) > 0).all())


@pytest.mark.parametrize("channels", [64, 512, 1000])
def test_features_of_few_dimensions_in_many(channels):
    """As those of networks: points on a surface, where neighbours are near."""
    x = torch.tanh(points(2, 200, 3) @ points(1, 3, channels, 1)[0])
    assert_exact(x, 10)
    assert_exact(x.relu(), 30, False)


@pytest.mark.parametrize("channels", [130, 512])
@pytest.mark.parametrize("loop", [True, False])
def test_tails_leave_many_candidates(channels, loop):
    """Steps are wide there, so that the first candidates' distances have to rule the others out."""
    x = points(3, 400, channels)
    x[0] = x[0] ** 3
    x[1] = (2 * x[1]).exp()
    assert_exact(x, 10, loop)
    x[2, 200:] = x[2, :200]  # each of them twice
    assert_exact(x, 3, loop)


def test_duplicates_and_ties():
    x = points(1, 100, 8)
    assert_exact(x.repeat(1, 3, 1), 10)
    assert_exact(x.repeat(1, 3, 1), 5, False)
    grid = torch.cartesian_prod(*[torch.arange(6.0)] * 3).unsqueeze(0)
    assert_exact(grid, 7)
    assert_exact(1000 + grid, 20, False)


@pytest.mark.parametrize("far", [1, 10, 30, 100])
@pytest.mark.parametrize("loop", [True, False])
def test_words_where_bytes_leave_too_many(far, loop):
    """Steps are as wide as the largest coordinate asks: one far point or one wide channel hides the rest."""
    x = points(3, 300, 8)
    x[1, 5] *= far
    assert_exact(x, 10, loop)
    x[2, :, 3] *= far
    assert_exact(x, 30, loop)


def test_more_dimensions_than_sums_of_bytes_hold():
    assert_exact(points(1, 130, 16400), 5)


@pytest.mark.parametrize("near", [1e-4, 0.0])
def test_some_points_have_too_many_candidates(near):
    """These are gone through by differences to all: a heap within a step, and copies of one point."""
    clouds = points(20, 300, 8)
    clouds[7, :280] = 0.3 + near * points(1, 280, 8, 1)[0]
    assert_exact(clouds, 12)
    clouds[7] = 3.0
    assert_exact(clouds, 12, False)


def test_leaves_what_rounding_does_not_tell_apart():
    """A point far away makes all others equal; products of floats find their neighbours."""
    x = points(1, 400, 8)
    x[0, 0] = 1e4
    assert knn_rounded.neighbors(x, 10, True) is None
    oracles.assert_nearest(x[0], knn(x, 10)[0])


def test_leaves_what_is_not_finite():
    for bad in (float("nan"), float("inf"), 1.8e19):
        x = points(2, 200, 8)
        x[1, 4, 2] = bad
        assert knn_rounded.neighbors(x, 5, True) is None
    with pytest.raises(ValueError, match="point 4 of cloud 1 is"):
        knn(torch.where(x > 1e19, torch.nan, x), 5)


def test_tiny_coordinates():
    """127 over the largest overflows, so that all points are in doubt: still distinct neighbours."""
    x = 1e-38 * points(1, 200, 8)
    assert all(len(set(row)) == 5 for row in knn(x, 5)[0].tolist())


def test_threads_and_clouds_do_not_show():
    x = points(5, 333, 24)
    with compiled.threads(1):
        expected = knn_rounded.neighbors(x, 12, True)
    with compiled.threads(2):
        assert torch.equal(knn_rounded.neighbors(x, 12, True), expected)
    assert torch.equal(knn_rounded.neighbors(x[2:3], 12, True), expected[2:3])
    strided = torch.cat([x, x], -1)[..., :24]
    assert torch.equal(knn_rounded.neighbors(strided, 12, True), expected)


def test_declines():
    x = points(2, 200, 8)
    assert knn_rounded.fits(x, 31)
    for own, k in ((x, 32), (x[:, :127], 5), (x.double(), 5), (x[:0], 5), (x[..., :0], 5)):
        assert not knn_rounded.fits(own, k)
    for channels, most in ((1, 2**10), (2, 2**10), (3, 2**14), (7, 2**14), (8, 2**17), (2**16, 2**17)):
        cloud = torch.empty(1, 1, 1).expand(1, most + 1, channels)
        assert not knn_rounded.fits(cloud, 5)
        assert knn_rounded.fits(cloud[:, 1:], 5)
    assert not knn_rounded.fits(torch.empty(1, 1, 1).expand(1, 200, 2**16 + 1), 5)
