import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from triton_kernels import DEVICE, kernels, random

from mgic_geo import knn, knn_graph
from mgic_geo.graph.gpu import faster
from mgic_geo.graph.gpu import knn as by_kernel
from mgic_geo.graph.knn import knn_table


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
        found.append(arguments[8] if len(arguments) > 8 else None)
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


def test_near_ties_are_settled_by_differences(launches, monkeypatch):
    """Clusters far apart, where products lose all digits: rows of several clouds are done again."""
    clusters = 1e3 * random(2, 4, 1, 8) + 1e-1 * random(2, 4, 12, 8, seed=1)
    x = clusters.view(2, 48, 8)
    monkeypatch.setattr(by_kernel, "_FEW", 0)
    with kernels():
        table = knn(x, 7)
    assert [listed is None for listed in launches] == [True, False]
    assert launches[1].unique().numel() > 48
    for cloud, rows in zip(x.cpu(), table.cpu(), strict=True):
        oracles.assert_nearest(cloud, rows)


def in_doubt(x, k, loop):
    """By how much of the noise that rounding may make two distances of each point's first k + 1 differ."""
    x = x.double() - x.double().mean(1, keepdim=True)
    distance = (x.unsqueeze(2) - x.unsqueeze(1)).square().sum(-1)
    distance.diagonal(0, 1, 2).fill_(-torch.inf if loop else torch.inf)
    value = distance.topk(k + 1, largest=False).values
    norm = x.square().sum(-1)
    reach = value[..., k - 1].clamp(min=0).sqrt()
    noise = 1.5 * torch.finfo(torch.float32).eps * x.size(-1) ** 0.5 * (norm.sqrt() + reach).square()
    return value.diff(dim=-1).nan_to_num(posinf=torch.inf).amin(-1) / (2 * noise)


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_who_is_in_doubt_is_told_by_the_gaps(k, loop, launches, monkeypatch):
    """Points on a sphere about some at its middle, for which distances all but tie, and one large cloud."""
    monkeypatch.setattr(by_kernel, "_FEW", 0)
    rim = torch.nn.functional.normalize(random(2, 40, 8, dtype=torch.float64), dim=-1)
    rim *= 1 + 2e-5 * random(2, 40, 1, dtype=torch.float64, seed=1)
    middle = 1e-6 * random(2, 4, 8, dtype=torch.float64, seed=2) + torch.tensor([0.0, 2.0]).view(2, 1, 1)
    pairs = random(2, 6, 8, dtype=torch.float64, seed=3) + 0.1
    beside = pairs + 1e-3 * random(2, 6, 8, dtype=torch.float64, seed=4)
    x = torch.cat([rim, middle, pairs, beside], 1) * torch.tensor([1.0, 300.0], device=DEVICE).view(2, 1, 1)
    x = x.float()
    x = x - x.mean(1, keepdim=True)
    with kernels():
        table = knn_table(x.view(-1, 8), k, torch.arange(2, device=DEVICE).repeat_interleave(56), loop=loop)
    doubt = in_doubt(x, k, loop).flatten()
    listed = torch.zeros_like(doubt, dtype=torch.bool)
    listed[torch.cat([torch.empty(0, dtype=torch.long, device=DEVICE), *launches[1:]])] = True
    assert listed[doubt < 0.6].all()
    assert not listed[doubt > 1.4].any()
    for cloud, rows in zip(x.cpu(), table.view(2, 56, k).cpu(), strict=True):
        number = torch.arange(56).view(-1, 1)
        first = rows.min().item() - rows.min().item() % 56
        rows = rows - first
        assert loop or not (rows == number).any()
        oracles.assert_nearest(cloud, rows if loop else torch.cat([number, rows], 1))


def test_where_many_are_in_doubt_all_are_done_by_differences(launches):
    x = random(10, 8).repeat_interleave(6, 0)
    with kernels():
        oracles.assert_nearest(x.cpu(), knn(x, 9).cpu())
    assert launches == [None, None]


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("clusters", [True, False])
def test_clouds_of_any_sizes_go_at_once(clusters, channels, loop, launches):
    """One of them without points, one with just as many as are asked, some queries done again."""
    sizes, k = [40, 0, 70, 6 if loop else 7, 33], 6
    batch = torch.arange(5).repeat_interleave(torch.tensor(sizes)).to(DEVICE)
    x = random(sum(sizes), channels) + 1e4 * batch.view(-1, 1)  # each cloud elsewhere
    if clusters:
        x[50:62] += 1e3 - x[50:62].mean(0) + random(12, channels, seed=1) / 100
    with kernels():
        table = knn_table(x, k, batch, loop=loop)
    assert len(launches) == 1 + (channels == 8 and clusters)
    first = 0
    for size in filter(None, sizes):
        cloud, rows = x[first : first + size].cpu(), table[first : first + size].cpu() - first
        nearest = oracles.nearest(cloud, min(k + 1, size))
        assert torch.equal(rows, nearest[:, :k] if loop else nearest[:, 1:])
        first += size


def test_clouds_of_any_sizes_that_no_kernel_takes(launches):
    x, batch = random(20, 3), torch.tensor([0] * 8 + [1] * 12, device=DEVICE)
    with kernels():
        for other in (x.double(), x * 1e19 / x.norm(dim=1).amax()):
            assert torch.equal(knn_table(other, 3, batch), knn_table(x.double(), 3, batch))
        x[4, 1] = torch.nan
        with pytest.raises(ValueError, match="points must be finite, but point 4 of cloud 0"):
            knn_table(x, 3, batch)
    assert not launches


def test_a_search_waits_for_the_device_twice(monkeypatch):
    """To see that all is finite and nothing overflows, and who is in doubt."""
    x = random(1, 40, 8)
    with kernels():
        knn(x, 5)
        monkeypatch.setattr(by_kernel, "_launch", lambda *arguments, **options: arguments[4].fill_(False))
        with torch.profiler.profile() as profile:
            knn(x, 5)
    waits = [event.count for event in profile.key_averages() if event.key in ("aten::item", "aten::nonzero")]
    assert sum(waits) == 2


def test_operators_of_any_sizes_are_registered_soundly():
    with kernels():
        torch.library.opcheck(torch.ops.mgic_geo.knn_unequal.default, (random(20, 8), [8, 12], 3, True))


def test_clear_points_are_done_once(launches):
    x = torch.arange(30.0, device=DEVICE).square().unsqueeze(1).repeat(1, 8)
    with kernels():
        table = knn(x, 1)
    assert len(launches) == 1
    assert table.flatten().tolist() == list(range(30))


def test_differences_that_overflow_are_not_the_kernels(launches):
    x = torch.linspace(-1, 1, 12, device=DEVICE).view(12, 1) * 1.8e19
    with kernels():
        table = knn(x, 12)
    assert not launches
    assert table.sort(1).values.tolist() == [list(range(12))] * 12


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
