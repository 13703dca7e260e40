"""torch.compile sees the core and the layers as one graph, forward and backward, for any number of nodes."""

import pytest
import torch
import torch._dynamo
import torch_geometric.nn as pyg
from torch import nn

from mgic_geo import ChannelHierarchy, EdgeConv, GroupedLinear, MGICBlock, MGICGraphConv, MGICGraphSAGE

# dynamo looks into modules of torch that announce their end; none of it is ours.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def example(nodes):
    torch.manual_seed(nodes)
    return torch.randn(nodes, 16, requires_grad=True), torch.randint(nodes, (2, 3 * nodes))


def assert_equal_to_eager(model, compiled, *inputs):
    """Outputs, and gradients of the input and all weights."""
    leaves = [inputs[0], *model.parameters()]
    eager, out = model(*inputs), compiled(*inputs)
    upstream = torch.randn_like(eager)
    torch.testing.assert_close(out, eager, rtol=1e-4, atol=1e-5)
    wanted = torch.autograd.grad(eager, leaves, upstream)
    for got, expected in zip(torch.autograd.grad(out, leaves, upstream), wanted, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


def assert_one_graph_for_all_sizes(model, inputs=example, backend="aot_eager"):
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=True)
    assert_equal_to_eager(model, compiled, *inputs(12))
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert_equal_to_eager(model, compiled, *inputs(17))


def test_the_core():
    hierarchy = ChannelHierarchy(16, group_size=4, coarse_size=8)
    block = MGICBlock(hierarchy, lambda width, groups: GroupedLinear(width, width, groups), norm=nn.LayerNorm)
    assert_one_graph_for_all_sizes(block, lambda nodes: example(nodes)[:1])


class Chain(nn.Module):
    """One layer after the other."""

    def __init__(self, *convs):
        super().__init__()
        sizes = {"group_size": 8, "coarse_size": 8, "norm": "layer_norm"}
        self.layers = nn.ModuleList(MGICGraphConv(16, 16, conv=conv, **sizes) for conv in convs)

    def forward(self, x, edge_index):
        for layer in self.layers:
            x = layer(x, edge_index)
        return x


def test_layers():
    torch.manual_seed(0)
    assert_one_graph_for_all_sizes(Chain(pyg.SAGEConv, EdgeConv))


def test_more_layers():
    torch.manual_seed(0)
    chain = Chain(pyg.GCNConv, pyg.GATConv, pyg.GINConv)
    assert_one_graph_for_all_sizes(chain, backend="eager")


def test_no_graph_break_in_a_model():
    torch.manual_seed(0)
    model = MGICGraphSAGE(16, 16, 3, 3, group_size=8, coarse_size=8)
    explained = torch._dynamo.explain(model)(*example(12))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)
