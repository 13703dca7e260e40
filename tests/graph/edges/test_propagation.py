"""When a layer's own form runs, and that PyG's propagation runs in all other cases."""

import pytest
import torch
import torch_geometric.nn as pyg

from mgic_geo import grouped
from mgic_geo.benchmark.pyg_layers import example_graph, inputs_of, options_of
from mgic_geo.graph.edges import sums
from mgic_geo.graph.edges.propagation import edgewise
from mgic_geo.graph.grouped.fast import FAST

INDEX = example_graph(9, 3)
FORMS = [conv for conv, rule in FAST.items() if rule.form is not None and conv is not pyg.GeneralConv]
OWN = [conv for conv in FORMS if not FAST[conv].form.__name__.startswith("Linear")]  # type: ignore[union-attr]


def named(conv):
    return conv.__name__


@pytest.fixture
def counted(monkeypatch):
    """How often rows were summed by bags."""
    calls, segment_sum = [], sums.segment_sum
    monkeypatch.setattr(sums, "segment_sum", lambda *args: calls.append(1) or segment_sum(*args))
    return calls


def run(layer, conv, dtype=torch.float32):
    torch.manual_seed(0)
    inputs = inputs_of(conv, torch.randn(9, 8), INDEX, options_of(conv))
    inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
    return layer.to(dtype).eval()(**inputs)


@pytest.mark.parametrize("conv", OWN, ids=named)
def test_hooks_get_the_same_from_pygs_propagation(conv, counted):
    torch.manual_seed(0)
    layer, seen = grouped(conv, 2)(8, 8, **options_of(conv)), []
    out = run(layer, conv)
    assert counted
    handle = layer.layer.register_message_forward_hook(lambda *args: seen.append(1))
    torch.testing.assert_close(run(layer, conv), out, rtol=1e-4, atol=1e-5)
    assert seen
    handle.remove()
    assert run(layer, conv, torch.bfloat16).dtype == torch.bfloat16


def test_what_the_forms_are_for():
    layer, x = pyg.SAGEConv(4, 4), torch.randn(9, 4)
    assert edgewise(layer, INDEX, x, None)
    assert not edgewise(layer, INDEX, x.half())
    assert not edgewise(layer, INDEX, x, x.double())
    assert not edgewise(layer, INDEX, x.to("meta"))
    assert not edgewise(layer, INDEX.to_sparse(), x)
    assert not edgewise(pyg.SAGEConv(4, 4, flow="target_to_source"), INDEX, x)


@pytest.mark.parametrize("conv", [pyg.GATv2Conv, pyg.EdgeConv, pyg.GINEConv, pyg.CGConv], ids=named)
def test_compiles_to_one_graph(conv):
    torch.manual_seed(0)
    layer = grouped(conv, 2)(8, 8, **options_of(conv))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(run(compiled, conv), run(layer, conv), rtol=1e-4, atol=1e-5)
