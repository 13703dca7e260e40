"""Work is counted by its definition, and the floor is the longer of its two times."""

import pytest
import torch
from torch import nn

from mgic_geo.benchmark.floor import Rates, Work, measure_rates, work_of
from mgic_geo.graph import knn


class Neighbors(nn.Module):
    def forward(self, x):
        return knn(x, 3)


def test_linear():
    model, x = nn.Linear(6, 5), torch.randn(7, 6)
    work = work_of(model, x)
    assert work.multiply_adds == 3 * 7 * 6 * 5
    assert work.bytes == 4 * (7 * 6 + 7 * 5 + 3 * (6 * 5 + 5))  # autograd saves but x and the weight
    forward = work_of(model, x, backward=False)
    assert forward.multiply_adds == 7 * 6 * 5
    assert forward.bytes == 4 * (7 * 6 + 7 * 5 + 6 * 5 + 5)


def test_saved_activations_count_once_written_and_once_read():
    plain = work_of(nn.Linear(6, 5), torch.randn(7, 6))
    # tanh saves its output, which the second one's input shares.
    twice = work_of(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Tanh()), torch.randn(7, 6))
    assert twice.multiply_adds == plain.multiply_adds
    assert twice.bytes == plain.bytes + 4 * 2 * 2 * (7 * 5)


def test_knn_has_no_backward_pass():
    x = torch.randn(2, 8, 5)
    for backward in (False, True):
        work = work_of(Neighbors(), x, backward=backward)
        assert (work.multiply_adds, work.knn) == (0, 2 * 8**2 * (5 + 1))
    assert work_of(Neighbors(), x).bytes == 4 * x.numel() + 8 * 2 * 8 * 3


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
def test_sparse_and_expanded_tensors_count_what_they_hold():
    class Product(nn.Module):
        def __init__(self, layout):
            super().__init__()
            dense = torch.eye(4)
            self.matrix = dense.to_sparse_csr() if layout == "csr" else dense.to_sparse_coo()

        def forward(self, x):
            return torch.sparse.mm(self.matrix, x) * torch.ones(1).expand(4, 2)

    x = torch.randn(4, 2, requires_grad=True)
    coo = work_of(Product("coo"), x)
    # in and out; saved: the matrix with two indices an entry, and the one that is expanded
    assert coo.bytes == 4 * 16 + 2 * (4 * 4 + 8 * 8 + 4)
    csr = work_of(Product("csr"), x)
    assert csr.bytes == 4 * 16 + 2 * (4 * 4 + 8 * 4 + 8 * 5 + 4)


def test_floor():
    rates = Rates(multiply_adds=10.0, bytes=100.0)
    assert Work(50, 100).floor(rates) == 5.0
    assert Work(5, 300).floor(rates) == 3.0
    assert Work(50, 100, knn=40).floor(rates) == 6.0  # by bytes, four times as fast


@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_rates(clock):
    rates = measure_rates("cpu", clock, size=128)
    assert 1e6 < rates.multiply_adds < 1e14
    assert 1e6 < rates.bytes < 1e13
    assert measure_rates("cpu", clock, size=128) is rates  # measured once
