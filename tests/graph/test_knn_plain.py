import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgic_geo import knn
from mgic_geo.graph.knn_plain import _products, knn_plain


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(2, 40), st.integers(1, 70), st.integers(0, 2**30), st.data())
def test_equals_knn(clouds, points, channels, seed, data):
    torch.manual_seed(seed)
    x = torch.randn(clouds, points, channels) + 3
    k = data.draw(st.integers(1, points))
    assert torch.equal(knn_plain(x, k, loop=True), knn(x, k))


@pytest.mark.parametrize("channels", [3, 64])
def test_without_the_point_itself(channels):
    torch.manual_seed(0)
    x = torch.randn(2, 30, channels)
    assert torch.equal(knn_plain(x, 4, loop=False), knn_plain(x, 5, loop=True)[..., 1:])


@pytest.mark.parametrize("channels", [3, 64])
def test_ties_change_who_is_taken_and_never_how_far(channels):
    torch.manual_seed(0)
    x = torch.randint(3, (2, 60, channels)).float()
    x[:, 30:] = x[:, :30]
    table, expected = knn_plain(x, 7, loop=True), knn(x, 7)
    assert torch.equal(table[..., 0], torch.arange(60).expand(2, 60))  # itself, of all its copies

    def distances(indices):
        return torch.stack([(x[b][indices[b]] - x[b].unsqueeze(1)).square().sum(-1) for b in range(2)])

    torch.testing.assert_close(distances(table), distances(expected))


@pytest.mark.parametrize("places", [(1000, 1000), (300, -300)], ids=str)
def test_candidates_are_settled_by_differences(places):
    """Far from the origin a matrix product alone orders neighbours wrongly, and centring mends that of one
    cluster only.
    """
    torch.manual_seed(0)
    x = torch.randn(1, 200, 16)
    x[:, :100] += places[0]
    x[:, 100:] += places[1]
    exact = "donot_use_mm_for_euclid_dist"
    truth = torch.cdist(x.double(), x.double(), compute_mode=exact).topk(5, largest=False).indices
    assert torch.equal(knn_plain(x, 5, loop=True), truth)


def test_products_that_a_runtime_takes_in_tf32_are_as_good(monkeypatch):
    """Clusters among whose points products of 11 bits cannot tell."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, 64).repeat_interleave(40, 1) * 3 + 0.05 * torch.randn(2, 320, 64)

    def in_tf32(a, b):
        a, b = (((t.view(torch.int32) + 2**12) & ~(2**13 - 1)).view(torch.float32) for t in (a, b))
        return (a.double().matmul(b.double())).float()

    centred = x - x.mean(1, keepdim=True)
    truth = centred.double().matmul(centred.double().mT)
    error = (in_tf32(centred, centred.mT.contiguous()) - truth).abs().max()
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: in_tf32(a, b.contiguous()))
    assert (_products(centred) - truth).abs().max() < error / 500
    assert torch.equal(knn_plain(x, 10, loop=True), knn(x, 10))
