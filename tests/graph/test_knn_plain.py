import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgic_geo import knn
from mgic_geo.graph.knn_plain import knn_plain


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


def test_candidates_are_settled_by_differences():
    """Far from the origin a matrix product alone orders neighbours wrongly."""
    torch.manual_seed(0)
    x = torch.randn(1, 200, 16)
    x[:, :100] += 100
    x[:, 100:] -= 100
    truth = torch.cdist(x.double(), x.double()).topk(5, largest=False).indices
    assert (knn_plain(x, 5, loop=True) == truth).double().mean() > 0.99


class Neighbours(torch.nn.Module):
    def forward(self, x):
        return knn_plain(x, 10, loop=True)


def test_exported_products_are_exact_whatever_a_runtime_rounds():
    """Clusters among whose points products of few digits cannot tell; nothing shortens float64."""
    torch.manual_seed(0)
    x = torch.randn(2, 8, 64).repeat_interleave(40, 1) * 3 + 0.05 * torch.randn(2, 320, 64)
    program = torch.export.export(Neighbours(), (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    products = [node for node in program.graph.nodes if "matmul" in str(node.target)]
    assert {node.meta["val"].dtype for node in products} == {torch.float64}
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(program.module()(x), knn(x, 10))
