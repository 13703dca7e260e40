"""Softmax and maximum over edges, and activations in few passes, against PyG's and torch's."""

import compiled
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.utils import scatter
from torch_geometric.utils import softmax as pyg_softmax

from mgic_geo.graph.edges.edge_csr import edge_csr
from mgic_geo.graph.edges.shares import edge_max, leaky_product, near, softmax, softmax_sum, softplus

TARGET = torch.tensor([3, 0, 3, 1, 0, 3, 4, 4])
GRAPH = edge_csr(torch.stack([TARGET, TARGET]), 6, 6)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(8, 4, dtype=torch.float64, requires_grad=True)


def assert_derivatives(function, *inputs):
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_softmax(x):
    torch.testing.assert_close(softmax(GRAPH, x), pyg_softmax(x, TARGET, num_nodes=6))
    assert_derivatives(lambda v: softmax(GRAPH, v), x)


@pytest.mark.parametrize("scale", [1.0, 1000.0])  # which of two ways to shift exponentials
def test_sum_weighed_by_softmax(x, scale):
    values = (scale * x).detach().requires_grad_()
    assert (near(values) is None) == (scale > 1)
    share = pyg_softmax(0.7 * values, TARGET, num_nodes=6)
    twin = scatter(share * values, TARGET, 0, dim_size=6)
    out = softmax_sum(GRAPH, values, 0.7)
    torch.testing.assert_close(out, twin)
    (a,), (b,) = (torch.autograd.grad(value.sin().sum(), values) for value in (out, twin))
    torch.testing.assert_close(a, b)


def test_sum_weighed_by_softmax_has_derivatives(x):
    assert_derivatives(lambda v: softmax_sum(GRAPH, v, 0.7), x)


def test_maximum_shares_its_gradient_like_pyg():
    torch.manual_seed(0)
    x = torch.randint(-2, 3, (8, 50)).double().requires_grad_()
    out, twin = edge_max(GRAPH, x), scatter(x, TARGET, 0, dim_size=6, reduce="max")
    torch.testing.assert_close(out, twin)
    upstream = torch.randn_like(twin)
    (a,), (b,) = (torch.autograd.grad(value, x, upstream) for value in (out, twin))
    torch.testing.assert_close(a, b)


def test_products_of_leaky_features(x):
    att = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    twin = (F.leaky_relu(x, 0.2).view(-1, 2, 2) * att).sum(2)
    torch.testing.assert_close(leaky_product(x, att, 0.2), twin)
    assert_derivatives(lambda *values: leaky_product(*values, 0.2), x, att)


def test_softplus_is_as_good_as_torchs():
    x = torch.cat([torch.linspace(-80, 80, 2001), torch.tensor([0.0, 1e-6, -1e-6])])
    exact = torch.logaddexp(x.double(), torch.zeros((), dtype=torch.float64))
    assert ((softplus(x) - exact) / exact).abs().max() < 4e-7
    assert_derivatives(softplus, torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True))


@compiled.needed
@pytest.mark.parametrize("heads", [16, 48])
def test_softmax_by_compiled_loops(heads):
    scores = 20 * torch.randn(8, heads, generator=torch.Generator().manual_seed(0))

    def step(_module, x):
        return softmax(GRAPH, x)

    compiled.assert_as_plain(step, nn.Identity(), [scores])
    compiled.assert_same_on_threads(step, nn.Identity(), [scores])
    compiled.assert_second_derivatives(step, nn.Identity(), [scores])
