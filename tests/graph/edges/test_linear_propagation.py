"""The sparse propagation of linear messages against PyG's own, edge by edge."""

import copy
import pickle

import pytest
import torch
import torch_geometric.nn as pyg
from torch_geometric.utils import scatter

from mgic_geo import grouped
from mgic_geo.benchmark.pyg_layers import example_graph
from mgic_geo.graph.edges import linear_propagation as module
from mgic_geo.graph.edges.linear_propagation import linear_form, propagate
from mgic_geo.graph.edges.scatter import edge_softmax, reduce_edges

INDEX = example_graph(9, 3)


@pytest.fixture
def counted(monkeypatch):
    """How often the sparse product ran."""
    calls = []
    monkeypatch.setattr(module, "propagate", lambda *args: calls.append(1) or propagate(*args))
    return calls


@pytest.mark.parametrize("weighted", [False, True])
def test_spread_sums_over_edges(weighted):
    torch.manual_seed(0)
    x = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(27, dtype=torch.float64, requires_grad=True) if weighted else None
    inputs = [x, weight] if weighted else [x]
    out = propagate(x, INDEX, weight, 11)
    messages = x[INDEX[0]] * (weight.unsqueeze(1) if weighted else 1)
    twin = scatter(messages, INDEX[1], 0, dim_size=11)
    upstream = torch.randn_like(twin)
    for a, b in zip(
        [out, *torch.autograd.grad(out, inputs, upstream)],
        [twin, *torch.autograd.grad(twin, inputs, upstream)],
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradgradcheck(lambda *values: propagate(values[0], INDEX, weight, 11), (x,))


def test_an_index_outside_the_nodes_is_refused():
    with pytest.raises(ValueError, match=r"source indices must lie in \[0, 8\)"):
        propagate(torch.randn(8, 2), INDEX, None, 9)


def test_compiles_to_one_graph():
    torch.manual_seed(0)
    layer = grouped(pyg.GraphConv, 2)(8, 8)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(9, 8, requires_grad=True)
    torch.testing.assert_close(compiled(x, INDEX), layer(x, INDEX))
    (a,), (b,) = (torch.autograd.grad(run(x, INDEX).square().sum(), x) for run in (compiled, layer))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("conv", "options", "runs"),
    [
        (pyg.GraphConv, {}, True),
        (pyg.GraphConv, {"aggr": "mean"}, True),
        (pyg.GraphConv, {"aggr": "max"}, False),
        (pyg.GraphConv, {"flow": "target_to_source"}, False),
        (pyg.GCNConv, {"decomposed_layers": 2}, False),
        (pyg.LEConv, {}, True),
        (pyg.LEConv, {"aggr": "max"}, False),
    ],
)
def test_other_cases_are_pygs(conv, options, runs, counted):
    torch.manual_seed(0)
    x, weight = torch.randn(9, 8), torch.rand(27)
    plain = conv(8, 8, **options)
    form = linear_form(conv)(8, 8, **options)
    form.load_state_dict(plain.state_dict())
    torch.testing.assert_close(form(x, INDEX, weight), plain(x, INDEX, weight))
    assert bool(counted) == runs


def test_hooks_see_the_messages(counted):
    layer, seen = linear_form(pyg.SAGEConv)(4, 4), []
    layer.register_message_forward_hook(lambda *args: seen.append(args[-1].shape))
    layer(torch.randn(9, 4), INDEX)
    assert seen == [(27, 4)]
    assert not counted


def test_other_precisions_and_pairs(counted):
    layer = linear_form(pyg.SAGEConv)(4, 4)
    assert layer((torch.randn(9, 4), torch.randn(10, 4)), INDEX).shape == (10, 4)
    assert len(counted) == 1
    assert layer.bfloat16()(torch.randn(9, 4).bfloat16(), INDEX).dtype == torch.bfloat16
    assert len(counted) == 1
    with torch.autocast("cpu", torch.bfloat16):
        assert grouped(pyg.GCNConv, 2)(4, 4)(torch.randn(9, 4), INDEX).isfinite().all()


def test_forms_copy_and_pickle():
    layer = linear_form(pyg.SGConv)(4, 4)
    x = torch.randn(9, 4)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x, INDEX), layer(x, INDEX))


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min", "mul"])
@pytest.mark.parametrize("shape", [(27, 4), (27, 2, 3)])
def test_reductions_are_pygs(reduce, shape):
    torch.manual_seed(0)
    x = torch.randint(-3, 4, shape).double().requires_grad_()  # several edges attain a maximum
    out = reduce_edges(x, INDEX[1], None, 11, 0, reduce)
    twin = scatter(x, INDEX[1], 0, dim_size=11, reduce=reduce)
    torch.testing.assert_close(out, twin)
    upstream = torch.randn_like(twin)
    (a,), (b,) = torch.autograd.grad(out, x, upstream), torch.autograd.grad(twin, x, upstream)
    torch.testing.assert_close(a, b)


def test_reductions_along_other_axes_are_pygs():
    x = torch.randn(2, 27, 4)
    twin = scatter(x, INDEX[1], 1, dim_size=9)
    torch.testing.assert_close(reduce_edges(x, INDEX[1], None, 9), twin)


def test_softmax_over_edges():
    torch.manual_seed(0)
    x = torch.randn(27, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: edge_softmax(value, INDEX[1], 9), (x,))
    sums = scatter(edge_softmax(x, INDEX[1], 9), INDEX[1], 0, dim_size=9)
    torch.testing.assert_close(sums, torch.ones_like(sums))
