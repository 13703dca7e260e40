import copy

import pytest
import torch
from torch import nn

from mgic_geo import MGICGraphConv, fuse, knn
from mgic_geo.graph.cycle_folded import FoldedCycle, fold_cycle
from mgic_geo.graph.neighbors import Neighbors


@pytest.mark.parametrize("coarse_size", [4, 8, 16])
@pytest.mark.parametrize("act", ["leaky_relu", None, "gelu"])
def test_equals_the_cycle(coarse_size, act):
    torch.manual_seed(0)
    layer = MGICGraphConv(32, 32, conv="edge", group_size=8, coarse_size=coarse_size, act=act).double()
    clouds = torch.randn(2, 20, 32, dtype=torch.double)
    table = knn(clouds, 4)
    for _ in range(3):
        layer(clouds, table)
    fused = fuse(layer)
    assert isinstance(fused.cycle, FoldedCycle)
    before = clouds.clone()
    torch.testing.assert_close(fused(clouds, table), layer.eval()(clouds, table), atol=1e-10, rtol=1e-10)
    assert torch.equal(clouds, before)  # what works in place leaves the input alone


def test_declines_what_it_does_not_know():
    layer = MGICGraphConv(32, 32, conv="edge", coarse_size=16)
    assert fold_cycle(layer.cycle) is None  # nothing is folded yet
    assert not isinstance(fuse(MGICGraphConv(32, 32, conv="SAGEConv", coarse_size=16)).cycle, FoldedCycle)
    assert not isinstance(fuse(MGICGraphConv(32, 32, conv="edge", coarse_size=32)).cycle, FoldedCycle)
    negative = MGICGraphConv(32, 32, conv="edge", coarse_size=16)
    nn.init.constant_(negative.cycle.blocks[0].norm.weight, -1)
    assert not isinstance(fuse(negative).cycle, FoldedCycle)


def test_copies_of_it_are_apart():
    torch.manual_seed(0)
    fused = fuse(MGICGraphConv(32, 32, conv="edge", coarse_size=16))
    x = torch.randn(10, 32)
    graph = Neighbors.from_table(knn(x, 3))
    other, expected = copy.deepcopy(fused), fused(x, graph)
    for parameter in other.parameters():
        parameter.zero_()
    assert torch.equal(fused(x, graph), expected)
