import pytest
import torch

from mgic_geo import knn, knn_graph
from mgic_geo.graph import knn_backends

BACKENDS = ["torch_cluster", "pyg_lib"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    if not knn_backends.available(request.param):
        pytest.skip(f"the optional package {request.param} is not installed")
    return request.param


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("loop", [True, False])
def test_equal_neighbours(backend, channels, loop):
    torch.manual_seed(0)
    x = torch.randn(90, channels)
    batch = torch.arange(3).repeat_interleave(torch.tensor([20, 40, 30]))
    ours = knn_graph(x, 6, batch, loop=loop)
    assert torch.equal(knn_graph(x, 6, batch, loop=loop, backend=backend), ours)


def test_equal_dense_neighbours(backend):
    torch.manual_seed(0)
    x = torch.randn(3, 50, 3)
    assert torch.equal(knn(x, 10, backend=backend), knn(x, 10))


def test_duplicates_keep_k_neighbours(backend):
    x = torch.randn(4, 3).repeat_interleave(6, 0)
    table = knn(x, 4, backend=backend)
    assert torch.equal(table[:, 0], torch.arange(24))
    graph = knn_graph(x, 4, backend=backend)
    assert graph.shape == (2, 96)
    assert not bool((graph[0] == graph[1]).any())


def test_the_same_errors(backend):
    with pytest.raises(ValueError, match="points must be finite"):
        knn(torch.full((1, 6, 3), torch.nan), 2, backend=backend)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_missing_package_is_named_with_the_remedy(name, monkeypatch):
    monkeypatch.setattr(knn_backends, "available", lambda backend: False)
    with pytest.raises(ImportError, match=f"backend='{name}' is not installed: install"):
        knn(torch.randn(1, 6, 3), 2, backend=name)
