import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton_kernels import DEVICE, kernels, random

from mgic_geo import knn, knn_graph
from mgic_geo.graph.gpu import faster
from mgic_geo.graph.gpu import knn as by_kernel


@pytest.fixture(autouse=True)
def first_way(monkeypatch):
    """Whatever the times, the kernel."""
    monkeypatch.setattr(faster, "_seconds", lambda way: 0.0)
    monkeypatch.setattr(faster, "_CHOSEN", {})


@pytest.fixture
def launches(monkeypatch):
    """The queries listed at each launch, None where all are."""
    found, launch = [], by_kernel._launch

    def watched(*arguments, **options):
        found.append(arguments[6])
        return launch(*arguments, **options)

    monkeypatch.setattr(by_kernel, "_launch", watched)
    return found


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2), st.integers(1, 80), st.sampled_from([1, 3, 4, 5, 33, 40]), st.data())
def test_equals_a_full_sort(clouds, points, channels, data):
    k = data.draw(st.integers(1, min(points, 20)))
    x = random(clouds, points, channels, seed=points)
    with kernels():
        table = knn(x, k)
    for cloud, rows in zip(x.cpu(), table.cpu(), strict=True):
        oracles.assert_nearest(cloud, rows)


@pytest.mark.parametrize("channels", [3, 8])
def test_a_point_may_be_none_of_its_own(channels, launches):
    x = random(40, channels)
    with kernels():
        graph = knn_graph(x, 7).cpu()
        everyone = knn_graph(x[:6], 5).cpu()
    assert launches
    assert torch.equal(graph[0].view(40, 7), oracles.nearest(x.cpu(), 8)[:, 1:])
    assert torch.equal(everyone[0].view(6, 5), oracles.nearest(x[:6].cpu(), 6)[:, 1:])


def test_near_ties_are_settled_by_differences(launches):
    """Clusters far apart, where products lose all digits: rows of several clouds are done again."""
    clusters = 1e3 * random(2, 4, 1, 8) + 1e-1 * random(2, 4, 12, 8, seed=1)
    x = clusters.view(2, 48, 8)
    with kernels():
        table = knn(x, 7)
    assert [listed is None for listed in launches] == [True, False]
    assert launches[1].unique().numel() > 48
    for cloud, rows in zip(x.cpu(), table.cpu(), strict=True):
        oracles.assert_nearest(cloud, rows)


def test_clear_points_are_done_once(launches):
    x = torch.arange(30.0, device=DEVICE).square().unsqueeze(1).repeat(1, 8)
    with kernels():
        table = knn(x, 1)
    assert len(launches) == 1
    assert table.flatten().tolist() == list(range(30))


def test_duplicates():
    x = random(5, 8).repeat_interleave(6, 0)
    with kernels():
        oracles.assert_nearest(x.cpu(), knn(x, 9).cpu())


def test_many_neighbours():
    x = random(70, 5)
    with kernels():
        oracles.assert_nearest(x.cpu(), knn(x, 63).cpu())


def test_what_it_takes():
    x = random(1, 70, 5)
    with kernels():
        assert by_kernel.fits(x, 63)
        assert not by_kernel.fits(x, 64)
        assert not by_kernel.fits(x.double(), 5)
        assert not by_kernel.fits(x[:, :0], 5)
        with pytest.raises(ValueError, match="points must be finite"):
            knn(x / 0, 3)
