import subprocess
import sys
from functools import partial

import compiled
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgic_geo import knn, knn_graph
from mgic_geo.graph.knn import knn_table
from mgic_geo.native import plain_torch

module = sys.modules["mgic_geo.graph.knn"]
path = compiled.paths()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 60), st.integers(1, 20), st.data())
def test_equals_a_full_sort(clouds, points, channels, data):
    k = data.draw(st.integers(1, points))
    x = torch.randn(clouds, points, channels, generator=torch.Generator().manual_seed(points))
    table = knn(x, k)
    assert table.shape == (clouds, points, k)
    for cloud, rows in zip(x, table, strict=True):
        oracles.assert_nearest(cloud, rows)


@pytest.mark.parametrize("channels", [3, 8, 64])
def test_far_clusters_and_offsets_stay_exact(channels):
    """Where the matrix form alone loses all digits."""
    torch.manual_seed(0)
    clusters = 1e3 * torch.randn(10, 1, channels) + 1e-1 * torch.randn(10, 30, channels)
    x = clusters.view(300, channels)
    assert torch.equal(knn(x, 7).sort(1).values, oracles.nearest(x, 7).sort(1).values)
    x = torch.randn(200, channels) + 1e4
    assert torch.equal(knn(x, 7).sort(1).values, oracles.nearest(x, 7).sort(1).values)


@pytest.mark.parametrize("channels", [3, 16])
def test_duplicates(channels):
    torch.manual_seed(0)
    x = torch.randn(6, channels).repeat_interleave(5, 0)
    oracles.assert_nearest(x, knn(x, 8))
    graph = knn_graph(x, 8)
    assert torch.equal(graph[1], torch.arange(30).repeat_interleave(8))
    assert not bool((graph[0] == graph[1]).any())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(5, 20), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_unequal_clouds(sizes, loop, to_source):
    x = torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(sum(sizes)))
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    flow = "target_to_source" if to_source else "source_to_target"
    edge_index = knn_graph(x, 4, batch, loop=loop, flow=flow)
    neighbor, node = edge_index.flip(0) if to_source else edge_index
    assert torch.equal(node, torch.arange(sum(sizes)).repeat_interleave(4))
    first = 0
    for size in sizes:
        alone = oracles.nearest(x[first : first + size], 5) + first
        expected = alone[:, :4] if loop else alone[:, 1:]
        assert torch.equal(neighbor.view(-1, 4)[first : first + size], expected)
        first += size


def test_dense_and_flat_agree():
    torch.manual_seed(0)
    x = torch.randn(3, 20, 8)
    flat = knn_table(x.view(60, 8), 5, torch.arange(3).repeat_interleave(20))
    assert torch.equal(flat.view(3, 20, 5), knn(x, 5) + 20 * torch.arange(3).view(3, 1, 1))


def test_empty_clouds_between_others():
    x, batch = torch.randn(12, 3), torch.tensor([0] * 6 + [2] * 6)
    assert torch.equal(knn_graph(x, 3, batch), knn_graph(x, 3, batch.div(2, rounding_mode="floor")))
    assert knn_graph(torch.zeros(0, 3), 3).shape == (2, 0)


def test_cosine():
    torch.manual_seed(0)
    x = torch.randn(30, 6)
    scaled = x * torch.rand(30, 1).add(0.1)
    assert torch.equal(knn_graph(scaled, 4, cosine=True), knn_graph(torch.nn.functional.normalize(x), 4))


def test_float32_inside_autocast_and_whatever_the_precision(monkeypatch):
    """The product itself is spied on: a CPU without bfloat16 arithmetic would hide a lapse in its values."""
    matmul = torch.backends.mkldnn.matmul
    seen, product = [], torch.baddbmm

    def spy(*args, **kwargs):
        seen.append((matmul.fp32_precision, torch.is_autocast_enabled("cpu")))
        return product(*args, **kwargs)

    monkeypatch.setattr(torch, "baddbmm", spy)
    x = torch.randn(2, 200, 32)
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        with torch.autocast("cpu", dtype=torch.bfloat16), plain_torch():
            table = knn(x, 10)
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
    assert set(seen) == {("ieee", False)}
    for cloud, rows in zip(x, table, strict=True):
        oracles.assert_nearest(cloud, rows)


def test_float64_is_kept():
    x = torch.zeros(4, 1, dtype=torch.double)
    x[:, 0] = torch.tensor([0.0, 1.0, 1.0 + 1e-12, 3.0])
    assert knn(x, 2)[1].tolist() == [1, 2]
    assert knn(x.repeat(1, 6), 2)[2].tolist() == [2, 1]


def test_no_gradient_and_compiled():
    x = torch.randn(2, 20, 8, requires_grad=True)
    assert not knn(x, 3).requires_grad
    torch.library.opcheck(module._knn, (x.detach(), 3, True))


def test_errors_name_value_and_remedy():
    x = torch.randn(2, 6, 3)
    with pytest.raises(ValueError, match=r"k=7 neighbours \(self included\) asked of a cloud of 6 points"):
        knn(x, 7)
    with pytest.raises(ValueError, match="cloud 1 has 3 points, but k=3 with loop=False needs at least 4"):
        knn_graph(x.view(12, 3)[:9], 3, torch.tensor([0] * 6 + [1] * 3))
    for bad in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="k must be an integer of at least 1"):
            knn(x, bad)
    with pytest.raises(ValueError, match=r"\(B, N, C\) or \(N, C\), got \(3,\)"):
        knn(torch.zeros(3), 1)
    with pytest.raises(ValueError, match="sort x and batch first"):
        knn_graph(x.view(12, 3), 2, torch.tensor([0, 1] * 6))
    with pytest.raises(ValueError, match="one cloud index a node: 12 nodes"):
        knn_graph(x.view(12, 3), 2, torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match=r"0 or more as int64, got torch\.float32"):
        knn_graph(x.view(12, 3), 2, torch.zeros(12))
    with pytest.raises(ValueError, match="names cloud 3, but batch_size=2"):
        knn_graph(x.view(12, 3), 2, torch.arange(4).repeat_interleave(3), batch_size=2)
    with pytest.raises(ValueError, match="flow must be"):
        knn_graph(x.view(12, 3), 2, flow="up")
    with pytest.raises(ValueError, match="backend must be"):
        knn(x, 2, backend="faiss")
    for search in (partial(knn, k=2), partial(knn_graph, k=2, cosine=True)):
        with pytest.raises(ValueError, match=r"real coordinates, got torch\.complex64; torch\.view_as_real"):
            search(torch.randn(6, 3, dtype=torch.cfloat))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_points_are_named(bad):
    x = torch.zeros(2, 6, 3)
    x[1, 4, 2] = bad
    with pytest.raises(ValueError, match=r"point 4 of cloud 1 is \[0.0, 0.0, (nan|inf)\]"):
        knn(x, 2)
    with pytest.raises(ValueError, match=r"overflow torch\.float32 when squared"):
        knn(torch.full((1, 6, 8), 1e30) * torch.arange(6).view(1, 6, 1), 2)


def test_a_large_cloud_never_holds_all_distances():
    """All distances of 20,000 points would take 1.6 GB; the process may grow by a tenth of that."""
    code = """
import resource, torch
from mgic_geo import knn
for channels in (3, 8):
    knn(torch.randn(1, 100, channels), 5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for channels in (3, 8):
    knn(torch.randn(1, 20_000, channels), 10)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert max(map(int, run.stdout.split())) < 160_000  # in kB


def test_no_points_and_no_clouds():
    assert knn(torch.zeros(0, 5, 3), 2).shape == (0, 5, 2)
    assert knn_graph(torch.zeros(0, 3), 2).shape == (2, 0)
