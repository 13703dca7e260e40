import oracles
import pytest
import torch

from mgic_geo import knn
from mgic_geo.graph import knn_chunked
from mgic_geo.native import plain_torch


@pytest.mark.parametrize("channels", [3, 16])
def test_chunks_do_not_show(channels, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(5, 37, channels)
    with plain_torch():
        whole = knn(x, 6)
        for chunk in (1, 37 * 10, 37 * 37 * 2):
            monkeypatch.setitem(knn_chunked._CHUNK, "cpu", chunk)
            assert torch.equal(knn(x, 6), whole)
    for cloud, rows in zip(x, whole, strict=True):
        oracles.assert_nearest(cloud, rows)
