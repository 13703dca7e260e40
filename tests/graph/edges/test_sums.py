"""Sums over edges against index_add, with first and second derivatives by differences."""

import pytest
import torch

from mgic_geo.graph.edges.edge_csr import edge_csr
from mgic_geo.graph.edges.sums import dot, edge_sum, gather_at_edges, spmm, total

SOURCES, TARGETS, EDGES = 7, 6, 20
INDEX = torch.stack(
    [
        torch.randint(SOURCES, (EDGES,), generator=torch.Generator().manual_seed(0)),
        torch.randint(TARGETS - 1, (EDGES,), generator=torch.Generator().manual_seed(1)),
    ]
)
SOURCE, TARGET = INDEX
GRAPH = edge_csr(INDEX, SOURCES, TARGETS)


def values(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def summed(messages):
    return messages.new_zeros(TARGETS, *messages.shape[1:]).index_add(0, TARGET, messages)


T, S, A, W = values(TARGETS, 4), values(SOURCES, 4), values(EDGES, 3), values(4, 3)
WIDE, WIDE_W = values(EDGES, 9), values(4, 9)
V, ONE, TWO = values(EDGES, 4), values(EDGES), values(EDGES, 2)
CASES = {
    "total": (lambda v: total(GRAPH, v), lambda v: summed(v), (V,)),
    "total of tables": (lambda v: total(GRAPH, v), lambda v: summed(v), (values(EDGES, 2, 3),)),
    "gather at edges": (lambda t: gather_at_edges(GRAPH, t), lambda t: t[TARGET], (T,)),
    "spmm": (lambda x: spmm(GRAPH, x), lambda x: summed(x[SOURCE]), (S,)),
    "weighed": (
        lambda x, w: spmm(GRAPH, x, w),
        lambda x, w: summed(x[SOURCE] * w.unsqueeze(1)),
        (S, ONE),
    ),
    "heads": (
        lambda x, w: spmm(GRAPH, x, w),
        lambda x, w: summed((x[SOURCE].view(-1, 2, 2) * w.unsqueeze(2)).flatten(1)),
        (S, TWO),
    ),
    "dot": (
        lambda a, b: dot(GRAPH, a, b, 2),
        lambda a, b: (a[TARGET] * b[SOURCE]).view(-1, 2, 2).sum(2),
        (T, S),
    ),
    "sum of two": (lambda t, s: edge_sum(GRAPH, t, s), lambda t, s: t[TARGET] + s[SOURCE], (T, S)),
    "sum of all": (
        lambda t, s, a, w: edge_sum(GRAPH, t, s, a, w),
        lambda t, s, a, w: t[TARGET] + s[SOURCE] + a @ w.t(),
        (T, S, A, W),
    ),
    "sum of many features": (
        lambda t, s, a, w: edge_sum(GRAPH, t, s, a, w),
        lambda t, s, a, w: t[TARGET] + s[SOURCE] + a @ w.t(),
        (T, S, WIDE, WIDE_W),
    ),
    "sum of an edge": (lambda a, w: edge_sum(GRAPH, None, None, a, w), lambda a, w: a @ w.t(), (A, W)),
    "sum of a source": (lambda s: edge_sum(GRAPH, None, s), lambda s: s[SOURCE], (S,)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives(name):
    ours, twin, inputs = CASES[name]
    out, expected = ours(*inputs), twin(*inputs)
    torch.testing.assert_close(out, expected)
    upstream = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(out, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradgradcheck(ours, inputs)


def test_no_edges():
    empty = edge_csr(INDEX[:, :0], SOURCES, TARGETS)
    x = torch.randn(SOURCES, 4, requires_grad=True)
    out = spmm(empty, x, torch.ones(0, 2)) + total(empty, edge_sum(empty, torch.randn(TARGETS, 4), x))
    assert not out.any()
    assert not torch.autograd.grad(out.sum(), x)[0].any()
