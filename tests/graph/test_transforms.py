"""Transforms of torch.func on fast layers, against the autograd that those transforms replace."""

import pytest
import torch
import torch_geometric.nn as pyg
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap

from mgic_geo import grouped
from mgic_geo.benchmark.pyg_layers import example_graph, inputs_of, options_of
from mgic_geo.graph.edges.scatter import edge_softmax, reduce_edges
from mgic_geo.graph.grouped.fast import FAST

INDEX = example_graph(6, 3)


def function_of(conv):
    """A layer, it as a function of its features, in double precision, and features."""
    torch.manual_seed(0)
    options = options_of(conv)
    layer = grouped(conv, 2)(8, 8, **options)
    x = torch.randn(6, 8, dtype=torch.float64)
    inputs = inputs_of(conv, x, INDEX, options)
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items() if k != "x"}
    layer = layer.double().eval()
    return layer, (lambda x: layer(x=x, **inputs)), x


@pytest.mark.parametrize("conv", FAST, ids=lambda conv: conv.__name__)
def test_grad_and_jvp_are_those_of_autograd(conv):
    _, function, x = function_of(conv)
    leaf, upstream, tangent = x.clone().requires_grad_(), *torch.randn(2, 6, 8, dtype=torch.float64)
    out = function(leaf)
    (expected,) = torch.autograd.grad(out, leaf, upstream)
    torch.testing.assert_close(grad(lambda x: (function(x) * upstream).sum())(x), expected)
    primal, slope = jvp(function, (x,), (tangent,))
    torch.testing.assert_close(primal, out.detach())
    torch.testing.assert_close((slope * upstream).sum(), (expected * tangent).sum())


@pytest.mark.parametrize("conv", [pyg.SAGEConv, pyg.GATv2Conv, pyg.GENConv], ids=lambda conv: conv.__name__)
def test_jacobians_weights_and_batches(conv):
    layer, function, x = function_of(conv)
    whole = torch.autograd.functional.jacobian(function, x)
    torch.testing.assert_close(jacrev(function)(x), whole)
    torch.testing.assert_close(jacfwd(function)(x), whole)
    torch.testing.assert_close(
        vmap(function)(torch.stack([x, 2 * x])), torch.stack([function(x), function(2 * x)])
    )
    weights = dict(layer.named_parameters())
    found = grad(lambda weights: functional_call(layer, weights, (x, INDEX)).sin().sum())(weights)
    expected = torch.autograd.grad(layer(x, INDEX).sin().sum(), list(weights.values()), allow_unused=True)
    for name, twin in zip(weights, expected, strict=True):
        torch.testing.assert_close(found[name], torch.zeros_like(found[name]) if twin is None else twin)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_reductions_and_softmax(reduce):
    x, tangent = torch.randn(2, 18, 3, dtype=torch.float64)
    for function in (
        lambda x: reduce_edges(x, INDEX[1], None, 6, 0, reduce),
        lambda x: edge_softmax(x, INDEX[1], 6),
    ):
        whole = torch.autograd.functional.jacobian(function, x)
        torch.testing.assert_close(jacrev(function)(x), whole)
        slope = jvp(function, (x,), (tangent,))[1]
        torch.testing.assert_close(slope, torch.tensordot(whole, tangent, 2))
