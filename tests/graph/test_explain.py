"""PyG's explainers and message hooks on EdgeConv and on cycles over it, beside PyG's own EdgeConv."""

import copy

import compiled
import cycles
import oracles
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric import EdgeIndex
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks

from mgic_geo import EdgeConv, MGICDynamicEdgeConv, MGICGraphConv, fuse, knn
from mgic_geo.core import norm_native
from mgic_geo.graph.cycle_native import compiled_cycle
from mgic_geo.graph.neighbors import Neighbors

of_any_size = compiled.of_any_size(norm_native)
NODES, EDGES = 20, 70


class PerGroup(nn.Module):
    """A grouped EdgeConv as one layer of PyG a group, with copies of its weights."""

    def __init__(self, conv):
        super().__init__()
        self.convs = nn.ModuleList(oracles.pyg_edge_conv(small) for small in conv.split())

    def forward(self, x, edge_index):
        parts = x.chunk(len(self.convs), 1)
        return torch.cat([conv(part, edge_index) for conv, part in zip(self.convs, parts, strict=True)], 1)


def of_pyg(layer):
    """A cycle whose levels are PyG's."""
    twin = copy.deepcopy(layer)
    twin._takes_neighbors = False
    for block in twin.cycle.blocks:
        block.conv = PerGroup(block.conv)
    return twin


def example(channels=8, dtype=torch.double):
    """Features and edges in no order; the last nodes gather from none."""
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.stack([
        torch.randint(NODES, (EDGES,), generator=generator),
        torch.randint(NODES - 3, (EDGES,), generator=generator),
    ])  # fmt: skip
    return torch.randn(NODES, channels, generator=generator).to(dtype), edge_index


def masked(model, x, graph, mask, apply_sigmoid=True):
    """The output under a mask, and the gradients of input and mask."""
    mask, x = mask.clone().requires_grad_(), x.clone().requires_grad_()
    set_masks(model, mask, torch.zeros(2, len(mask), dtype=torch.long), apply_sigmoid)
    out = model(x, graph)
    clear_masks(model)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    return out, torch.autograd.grad(out, [x, mask], upstream)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("apply_sigmoid", [True, False])
@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize(
    "options",
    [{}, {"act": "leaky_relu", "bias": True}, {"norm": None, "act": None}, {"groups": 2, "act": "tanh"}],
    ids=str,
)
def test_masks_do_to_the_layer_what_they_do_to_pygs(options, flow, apply_sigmoid, training):
    torch.manual_seed(0)
    conv = EdgeConv(8, 6, flow=flow, **options).double().train(training)
    if conv.norm is not None:
        nn.init.normal_(conv.norm.weight)
    x, edge_index = example()
    graph = edge_index if flow == "source_to_target" else edge_index.flip(0)
    mask = torch.randn(EDGES, dtype=torch.double)
    twin, before = PerGroup(conv), conv(x, graph)
    out, grads = masked(conv, x, graph, mask, apply_sigmoid)
    expected, twin_grads = masked(twin, x, graph, mask, apply_sigmoid)
    torch.testing.assert_close(out, expected)
    for grad, twin_grad in zip(grads, twin_grads, strict=True):
        torch.testing.assert_close(grad, twin_grad)
        assert grad.abs().sum() > 0
    if not training:
        assert not torch.allclose(out, before)
        assert torch.equal(conv(x, graph), before)


def test_the_mask_has_the_order_of_the_graph_as_it_is_given():
    torch.manual_seed(0)
    conv = EdgeConv(8, 6, norm=None).double()
    x, edge_index = example()
    twin, mask = oracles.pyg_edge_conv(conv), torch.randn(EDGES, dtype=torch.double)
    expected = masked(twin, x, edge_index, mask)[0]
    for graph in (edge_index.int(), EdgeIndex(edge_index, sparse_size=(NODES, NODES))):
        torch.testing.assert_close(masked(conv, x, graph, mask)[0], expected)
    neighbors = Neighbors.from_edge_index(edge_index, NODES)
    expected = masked(twin, x, neighbors.edge_index, mask)[0]
    torch.testing.assert_close(masked(conv, x, neighbors, mask)[0], expected)
    adjacency = torch.eye(NODES, dtype=torch.double).roll(3, 0).to_sparse_coo().coalesce()
    row, col = adjacency.indices()
    sparse = masked(twin, x, torch.stack([col, row]), mask[:NODES])[0]
    torch.testing.assert_close(masked(conv, x, adjacency, mask[:NODES])[0], sparse)
    table = knn(x.view(2, NODES // 2, 8), 3)
    expected = masked(twin, x, Neighbors.from_table(table).edge_index, mask[: 3 * NODES])[0]
    clouds = masked(conv, x.view(2, -1, 8), table, mask[: 3 * NODES])[0]
    torch.testing.assert_close(clouds.flatten(0, 1), expected)
    pair, mask = (x[:9], x[:5]), mask[:12]
    edge_index = torch.stack([torch.randint(9, (12,)), torch.randint(4, (12,))])
    for model in (conv, twin):
        set_masks(model, mask, edge_index)
    torch.testing.assert_close(conv(pair, edge_index), twin(pair, edge_index))


@pytest.mark.parametrize("flow", ["source_to_target", "target_to_source"])
def test_masks_act_on_all_levels_of_a_cycle(flow):
    torch.manual_seed(0)
    layer = MGICGraphConv(8, 16, "edge", group_size=4, coarse_size=8, flow=flow).double().eval()
    x, edge_index = example()
    twin, mask = of_pyg(layer), torch.randn(EDGES, dtype=torch.double)
    neighbors = Neighbors.from_edge_index(edge_index, NODES, flow=flow)
    ordered = neighbors.edge_index if flow == "source_to_target" else neighbors.edge_index.flip(0)
    for graph, same in ((edge_index, edge_index), (neighbors, ordered)):
        out, grads = masked(layer, x, graph, mask)
        expected, twin_grads = masked(twin, x, same, mask)
        torch.testing.assert_close(out, expected)
        for grad, twin_grad in zip(grads, twin_grads, strict=True):
            torch.testing.assert_close(grad, twin_grad)


def test_a_mask_of_one_level_alone():
    torch.manual_seed(0)
    layer = MGICGraphConv(8, 16, "edge", group_size=4, coarse_size=8).double().eval()
    x, edge_index = example()
    twin, mask = of_pyg(layer), torch.randn(EDGES, dtype=torch.double)
    before = layer(x, edge_index)
    for model in (layer, twin):
        set_masks(model.cycle.blocks[1], mask, edge_index)
    out = layer(x, edge_index)
    torch.testing.assert_close(out, twin(x, edge_index))
    assert not torch.allclose(out, before)


@pytest.mark.parametrize("kind", ["edge", "cycle"])
def test_an_explanation_is_that_of_pygs_layer(kind):
    torch.manual_seed(0)
    x, edge_index = example(16)
    if kind == "edge":
        model: nn.Module = EdgeConv(16, 4, act="leaky_relu").double().eval()
        twin: nn.Module = oracles.pyg_edge_conv(model)
    else:
        model = MGICGraphConv(16, 16, "edge", group_size=4, coarse_size=8).double().eval()
        twin = of_pyg(model)
    found = []
    for net in (model, twin):
        torch.manual_seed(1)
        explainer = Explainer(
            net,
            GNNExplainer(epochs=5),
            explanation_type="model",
            node_mask_type="attributes",
            edge_mask_type="object",
            model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
        )
        found.append(explainer(x, edge_index, index=3))
    ours, theirs = found
    assert ours.edge_mask.abs().sum() > 0
    torch.testing.assert_close(ours.edge_mask, theirs.edge_mask)
    torch.testing.assert_close(ours.node_mask, theirs.node_mask)


def test_a_mask_of_other_edges_says_so():
    x = torch.randn(NODES, 8)
    layer = MGICDynamicEdgeConv(8, 16, 3, group_size=4, coarse_size=8)
    set_masks(layer, torch.randn(EDGES), torch.zeros(2, EDGES, dtype=torch.long))
    with pytest.raises(ValueError, match=r"mask is of 70 edges, but the graph of EdgeConv.* has 60; only"):
        layer(x)
    clear_masks(layer)
    assert layer(x).shape == (NODES, 16)


def test_message_hooks_see_every_edge():
    torch.manual_seed(0)
    conv, (x, edge_index) = EdgeConv(8, 6).double().eval(), example()
    before, seen = conv(x, edge_index), []
    handle = conv.register_message_forward_hook(lambda module, inputs, out: seen.append(out))
    torch.testing.assert_close(conv(x, edge_index), before)
    ends = torch.cat([x[edge_index[1]], x[edge_index[0]] - x[edge_index[1]]], 1)
    torch.testing.assert_close(seen[0], F.relu(conv.norm(conv.lin(ends))))
    handle.remove()
    assert torch.equal(conv(x, edge_index), before)
    assert len(seen) == 1


@compiled.needed
def test_a_compiled_cycle_declines_while_messages_are_looked_at():
    layer, graph = cycles.layer(), cycles.graph_of(2, 30, 5)
    x, mask = cycles.rows(60, 32), torch.randn(300)
    args = layer.shortcut, layer.cycle, x, graph
    assert compiled_cycle(*args) is not None
    set_masks(layer, mask, graph.edge_index)
    assert compiled_cycle(*args) is None
    clear_masks(layer)
    handle = layer.cycle.blocks[1].conv.register_message_forward_hook(lambda *args: None)
    assert compiled_cycle(*args) is None
    handle.remove()
    assert compiled_cycle(*args) is not None
    twin = of_pyg(layer)
    torch.testing.assert_close(
        masked(layer, x, graph, mask)[0],
        masked(twin, x, graph.edge_index, mask)[0],
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip


def test_fused_models_refuse():
    x, edge_index = example(dtype=torch.float)
    for model in (EdgeConv(8, 6), MGICGraphConv(8, 16, "edge", group_size=4, coarse_size=8)):
        fused = fuse(model)
        set_masks(fused, torch.randn(EDGES), edge_index)
        with pytest.raises(ValueError, match="no messages of its own to mask; explain the model it was made"):
            fused(x, edge_index)
        clear_masks(fused)
        torch.testing.assert_close(fused(x, edge_index), model.eval()(x, edge_index))
