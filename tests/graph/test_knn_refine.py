import compiled
import oracles
import pytest
import torch

from mgic_geo import knn, knn_graph
from mgic_geo.graph import knn_chunked
from mgic_geo.native import plain_torch

path = compiled.paths()  # the compiled search calls none of this


@pytest.mark.parametrize("loop", [True, False])
def test_nearest_first_where_rounding_hides_the_order(loop):
    """Tight clusters far apart: among 8 channels the matrix form cannot tell a cluster's points apart."""
    torch.manual_seed(0)
    x = (100 * torch.randn(30, 1, 8) + 1e-2 * torch.randn(30, 10, 8)).view(300, 8)
    distance = (x.double().unsqueeze(1) - x.double().unsqueeze(0)).square().sum(-1)
    distance.fill_diagonal_(-1 if loop else torch.inf)
    expected = distance.argsort(dim=1)[:, :8]
    assert torch.equal(knn_graph(x, 8, loop=loop)[0].view(300, 8), expected)


@pytest.mark.parametrize("size", [1e-2, 1.0])
@pytest.mark.parametrize("loop", [True, False])
def test_nearest_first_in_two_clusters_far_apart(loop, size):
    """Where rounding hides the order of more points than there are candidates, or of a few."""
    torch.manual_seed(0)
    x = size * torch.randn(400, 8)
    x[:200] += 300
    x[200:] -= 300
    distance = (x.double().unsqueeze(1) - x.double().unsqueeze(0)).square().sum(-1)
    distance.fill_diagonal_(-1 if loop else torch.inf)
    assert torch.equal(knn_graph(x, 4, loop=loop)[0].view(400, 4), distance.argsort(dim=1)[:, :4])


@pytest.mark.parametrize("copies", [4, 30, 120])
def test_many_coinciding_points_in_many_dimensions(copies):
    """More copies than candidates: rows are settled by the full comparison, or at once by distance 0."""
    torch.manual_seed(0)
    x = torch.randn(240 // copies, 8).repeat_interleave(copies, 0)
    table = knn(x, 6)
    oracles.assert_nearest(x, table)
    assert torch.equal(table[:, 0], torch.arange(240))


def test_candidates_are_held_a_few_rows_at_once(monkeypatch):
    """Where points coincide all rows are in doubt, and candidates take more room than distances."""
    x, held, difference = torch.randn(8, 8).repeat_interleave(20, 0), [], torch.Tensor.sub_
    monkeypatch.setattr(torch.Tensor, "sub_", lambda a, b: held.append(a.numel()) or difference(a, b))
    with plain_torch():
        whole = knn(x, 5)
        assert held == [160 * 24 * 8]
        held.clear()
        monkeypatch.setitem(knn_chunked._CHUNK, "cpu", 160 * 160)
        assert torch.equal(knn(x, 5), whole)
    assert sum(held) == 160 * 24 * 8
    assert max(held) <= 160 * 160
