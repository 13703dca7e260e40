"""What a graph layer's block takes and refuses: layers, normalisations, activations, outputs."""

import cycles
import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn

from mgic_geo import EdgeConv, MGICGraphConv, create_model, fuse, knn_graph
from mgic_geo.graph.cycle_folded import fold_cycle
from mgic_geo.graph.cycle_native import compiled_cycle
from mgic_geo.graph.graph_block import GraphBlock, Levels, norm_factory
from mgic_geo.graph.grouped import resolve_conv


@pytest.fixture
def graph():
    torch.manual_seed(0)
    x = torch.randn(40, 32)
    return x, knn_graph(x, 6)


@pytest.mark.parametrize("conv", [pyg.SAGEConv(64, 64), EdgeConv(64, 64)])
def test_layers_that_are_built_already_are_refused(conv):
    name = type(conv).__name__
    with pytest.raises(ValueError, match=rf"a class, a name .* got {name}\(64, 64.*; .* conv={name}$"):
        MGICGraphConv(64, 64, conv=conv)
    with pytest.raises(ValueError, match=f"conv={name}$"):
        create_model("mgic_dgcnn", num_classes=4, wrapped=conv)


@pytest.mark.parametrize("conv", [None, 3, ["SAGEConv"]])
def test_what_builds_no_layer_is_refused(conv):
    with pytest.raises(ValueError, match=r"conv must build a layer .* got .*; give one$"):
        resolve_conv(conv)


def test_normalisations_that_are_built_already_are_refused():
    with pytest.raises(ValueError, match=r"factory norm\(width\), got BatchNorm1d\(64.*norm=BatchNorm1d$"):
        MGICGraphConv(64, 64, norm=nn.BatchNorm1d(64))
    with pytest.raises(ValueError, match=r"norm=LayerNorm$"):
        MGICGraphConv(64, 64, correction_norm=nn.LayerNorm(64))


@pytest.mark.parametrize("norm", [3, ["batch_norm"], True])
def test_what_builds_no_normalisation_is_refused(norm):
    with pytest.raises(ValueError, match=r"factory norm\(width\), got .*; every level has a width"):
        norm_factory(norm)


def test_a_class_as_activation_is_as_its_module(graph):
    outs = []
    for act in (nn.ELU, nn.ELU(), "elu"):
        torch.manual_seed(0)
        layer = MGICGraphConv(32, 64, act=act)
        outs.append(layer(*graph))
        assert all(type(block.act) is nn.ELU for block in layer.cycle.blocks)
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


def test_a_learned_activation_is_every_blocks_own(graph):
    layer = MGICGraphConv(32, 64, act=nn.PReLU)
    layer(*graph).sum().backward()
    acts = {block.act for block in layer.cycle.blocks}
    assert len(acts) == len(layer.cycle.blocks)
    assert all(act.weight.grad is not None for act in acts)


def test_functions_activate(graph):
    torch.manual_seed(0)
    layer = MGICGraphConv(32, 64, act=torch.relu).eval()
    torch.manual_seed(0)
    assert torch.equal(layer(*graph), MGICGraphConv(32, 64, act="relu").eval()(*graph))


@pytest.mark.parametrize("build", [MGICGraphConv, EdgeConv])
def test_other_activations_are_refused(build):
    with pytest.raises(ValueError, match=r"act must be a name such as 'relu', .* got 3"):
        build(32, 32, act=3)


class Narrow(pyg.MessagePassing):
    """One channel a group, whatever the width."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.lin = nn.Linear(in_channels, 1)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.lin(x))


@pytest.mark.parametrize("act_first", [False, True])
@pytest.mark.parametrize("norm", [None, "batch_norm"])
def test_layers_that_change_the_shape_are_refused(norm, act_first, graph):
    layer = MGICGraphConv(32, 32, conv=Narrow, norm=norm, act_first=act_first)
    with pytest.raises(ValueError, match=r"one shape, got \(40, 1\) from Narrow\(\) for \(40, 32\); conv"):
        layer(*graph)
    deep = MGICGraphConv(32, 64, conv=Narrow, norm=None, group_size=32)
    with pytest.raises(ValueError, match=r"got \(40, 1\) from Narrow\(\) for \(40, 32\)"):
        deep(*graph)


def test_a_block_of_its_own(graph):
    x, edge_index = graph
    block = GraphBlock(pyg.SAGEConv(32, 32), nn.Identity(), nn.Identity())
    torch.testing.assert_close(block(x, None, edge_index), x + block.conv(x, edge_index))
    with pytest.raises(ValueError, match="must be features, got tuple"):
        GraphBlock(pyg.GATConv(32, 32), nn.Identity(), nn.Identity())(
            x, None, edge_index, return_attention_weights=True
        )


@pytest.mark.parametrize("act_first", [False, True])
def test_a_block_without_a_residual_is_its_layer(act_first, graph):
    x, edge_index = graph
    parts = pyg.SAGEConv(32, 32), nn.LayerNorm(32), nn.ReLU()
    with_input, without = (GraphBlock(*parts, act_first, residual) for residual in (True, False))
    torch.testing.assert_close(with_input(x, None, edge_index), x + without(x, None, edge_index))


def test_levels_are_found_by_their_width():
    fine, coarse = torch.randn(5, 8), torch.randn(5, 4)
    levels = Levels((fine, coarse))
    assert levels.at(8) is fine
    assert levels.at(4) is coarse


def test_faster_cycles_are_of_residual_blocks():
    layer, x = cycles.layer(16), cycles.rows(60, 16)
    folded = fuse(MGICGraphConv(32, 32, conv="edge", coarse_size=16)).cycle.cycle
    assert fold_cycle(folded) is not None
    layer.cycle.blocks[1].residual = folded.blocks[1].residual = False
    assert compiled_cycle(layer.shortcut, layer.cycle, x, cycles.graph_of(2, 30, 5)) is None
    assert fold_cycle(folded) is None
