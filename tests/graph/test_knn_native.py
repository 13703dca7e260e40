import sys

import compiled
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgic_geo import knn, knn_graph
from mgic_geo.graph import knn_native, knn_rounded
from mgic_geo.graph.knn import knn_table
from mgic_geo.native import plain_torch

pytestmark = compiled.needed
module = sys.modules["mgic_geo.graph.knn"]


@pytest.fixture(autouse=True, scope="module")
def no_rounding():
    """The loops of this module come behind rounded coordinates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knn_rounded, "fits", lambda *_: False)
        yield


def points(count, channels, mean=0.0, seed=0):
    return mean + torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))


def compiled_table(x, k, loop=True):
    with compiled.counted() as calls:
        table = knn_table(x, k, loop=loop)
    assert calls
    return table


def assert_exact(x, k, loop=True, rows=None):
    """Against a full sort in float64, or of some rows of a large cloud."""
    table = compiled_table(x, k, loop)
    assert int(table.min()) >= 0
    assert int(table.max()) < len(x)
    if not loop:
        assert not bool((table == torch.arange(len(x)).view(-1, 1)).any())
        table = torch.cat([torch.arange(len(x)).view(-1, 1), table], 1)
    if rows is None:
        return oracles.assert_nearest(x, table)
    own = x.double()
    distance = (own[rows].unsqueeze(1) - own.unsqueeze(0)).square().sum(-1)
    distance[torch.arange(len(rows)), rows] = -1
    best = distance.sort(1).values[:, : table.size(1)]
    torch.testing.assert_close(distance.gather(1, table[rows]), best, rtol=1e-5, atol=1e-30)
    assert torch.equal(table[rows, 0], rows)
    assert bool((table[rows].sort(1).values.diff(dim=1) > 0).all())
    return None


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 200, 300]),
    st.sampled_from([1, 3, 4, 5, 8, 16, 19, 33, 48, 64]), st.booleans(), st.sampled_from([0.0, 1e3]),
    st.sampled_from([1, 2]), st.data(),
)  # fmt: skip
def test_equals_a_full_sort(count, channels, loop, mean, threads, data):
    most = min(count if loop else count - 1, 64)
    if most:
        k = data.draw(st.integers(1, most))
        with compiled.threads(threads):
            assert_exact(points(count, channels, mean, count), k, loop)


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("count", [4095, 4096, 4097, 5000, 8193])
def test_clouds_of_several_chunks(count, channels):
    rows = torch.tensor([0, 1, 63, 64, 4094, count - 2, count - 1])
    for k in (1, 20, 33, 64):
        assert_exact(points(count, channels), k, k != 20, rows)


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("loop", [True, False])
def test_duplicates(channels, loop):
    for different, times in ((1, 40), (1, 300), (2, 100), (40, 5), (200, 2)):
        x = points(different, channels).repeat(times, 1)
        for k in (1, 7, 39):
            assert_exact(x, k, loop)


@pytest.mark.parametrize("channels", [2, 5])
def test_a_grid_of_ties(channels):
    steps = 16 if channels == 2 else 3
    x = torch.cartesian_prod(*[torch.arange(float(steps))] * channels)
    assert_exact(x, 9)
    assert_exact(1000 + x, 9, False)


def test_rows_that_are_sorted_the_wrong_way():
    """Every value of a row is a candidate at first, or the bound is loose."""
    for x in (torch.arange(500.0), -torch.arange(500.0), torch.linspace(-1, 1, 500).pow(9)):
        assert_exact(x.unsqueeze(1), 64)
        assert_exact(x.unsqueeze(1) * torch.ones(1, 6), 30, False)


@pytest.mark.parametrize("channels", [3, 8, 64])
def test_far_clusters(channels):
    """Distances within a cluster are rounded away by the products, in part or altogether."""
    near = 0.1 * points(300, channels).view(10, 30, channels)
    for apart in (1, 10, 30, 100, 1e3):
        x = (apart * points(10, channels, seed=1).unsqueeze(1) + near).view(300, channels)
        for loop in (True, False):
            assert_exact(x, 20, loop)
    assert_exact(points(300, channels, 1e4), 7, False)


@pytest.mark.parametrize("channels", [3, 12, 40])
@pytest.mark.parametrize("loop", [True, False])
def test_threads_and_clouds_do_not_show(channels, loop):
    x = points(3 * 500, channels)
    batch = torch.arange(3).repeat_interleave(500)
    with compiled.threads(1):
        expected = knn_table(x, 12, batch, loop=loop)
    with compiled.threads(2):
        assert torch.equal(knn_table(x, 12, batch, loop=loop), expected)
    assert torch.equal(knn_table(x[500:1000], 12, loop=loop), expected[500:1000] - 500)


@pytest.mark.parametrize("channels", [32, 40, 100])
@pytest.mark.parametrize("count", [1, 31, 33, 64, 95, 600])
def test_products_computed_once_are_those_computed_twice(channels, count, monkeypatch):
    x, k = points(5 * count, channels).view(5, count, channels), min(count, 9)
    for threads in (1, 2, 3):
        with compiled.threads(threads):
            once = knn(x, k)
            for name in ("_MOST_POINTS", "_MOST_PRODUCTS"):  # twice; once, a cloud at a time
                with monkeypatch.context() as patch:
                    patch.setattr(knn_native, name, 0)
                    assert torch.equal(knn(x, k), once)


def test_where_queries_and_panels_end_does_not_show():
    """Neighbours of the first points do not change when far ones follow."""
    x = points(500, 12)
    expected = compiled_table(x, 9)
    for more in (1, 7, 31, 32, 33, 4000):
        far = 1e3 + points(more, 12)
        assert torch.equal(compiled_table(torch.cat([x, far]), 9)[:500], expected)


@pytest.mark.parametrize("channels", [3, 12])
def test_inputs_are_left_alone_and_may_be_strided(channels):
    x = points(400, 2 * channels)
    before = x.clone()
    strided = x[:, ::2]
    assert torch.equal(compiled_table(strided, 5), compiled_table(strided.contiguous(), 5))
    turned = points(channels, 400).t()
    assert torch.equal(compiled_table(turned, 5), compiled_table(turned.contiguous(), 5))
    assert torch.equal(x, before)


def test_float32_inside_autocast_and_whatever_the_precision():
    matmul = torch.backends.mkldnn.matmul
    x = points(200, 32)
    expected, before = compiled_table(x, 10), matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(compiled_table(x, 10), expected)
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
    oracles.assert_nearest(x, expected)


def test_values_near_overflow():
    """Squares are finite, twice the products or distances are not: still distinct points, its own first."""
    x = torch.zeros(80, 8)
    x[:, 0] = 1.8e19 * torch.linspace(-1, 1, 80)
    assert_exact(x, 3)
    assert_exact(x, 3, False)
    for k in (2, 10, 64, 80):
        table = knn(x, k)
        assert torch.equal(table[:, 0], torch.arange(80))
        assert all(len(set(row)) == k for row in table.tolist())
    far = torch.full((80, 8), 6e18)
    far[0] = -6e18  # whose squared norm overflows once the mean is off
    for context in (plain_torch(), torch.no_grad()):
        with context, pytest.raises(ValueError, match=r"overflow torch\.float32 when squared"):
            knn(far, 80)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_points_are_named(bad):
    for channels in (3, 8):
        x = torch.zeros(2, 6, channels)
        x[1, 4, 2] = bad
        with pytest.raises(ValueError, match="point 4 of cloud 1 is"):
            knn(x, 2)


def test_declines():
    x = points(100, 8)
    for own, k in ((x.double(), 5), (x, 65), (torch.zeros(0, 5, 8), 2)):
        compiled.assert_declines(knn, own, k)
    with compiled.counted() as calls:
        exported = torch.export.export(_Knn(), (x,))
    assert not calls
    assert torch.equal(exported.module()(x), knn(x, 5))


def test_half_precision_is_lifted():
    x = points(100, 8).bfloat16()
    assert torch.equal(compiled_table(x, 5), compiled_table(x.float(), 5))


class _Knn(torch.nn.Module):
    def forward(self, x):
        return knn(x, 5)


def test_runs_inside_compiled_code():
    x = points(100, 8)
    with compiled.counted() as calls:
        found = torch.compile(_Knn(), backend="eager", fullgraph=True)(x)
    assert calls
    assert torch.equal(found, knn(x, 5))
    torch.library.opcheck(module._knn, (x.view(2, 50, 8), 3, False))


def test_another_default_device():
    """Tables lie where the points lie."""
    x = points(100, 8)
    for own in (x, x[:, :3].contiguous()):
        expected = knn_graph(own, 5)
        with torch.device("meta"):
            assert torch.equal(knn_native.neighbors(*_prepared(own), 5, False)[0], expected[0].view(100, 5))


def _prepared(x):
    centred = (x - x.mean(0)).unsqueeze(0)
    return x.unsqueeze(0), centred, centred.square().sum(-1)
