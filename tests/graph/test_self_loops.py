"""Self-loops that PyG switches off reach every layer inside, and what it kept of a graph with them goes."""

from functools import partial

import pytest
import torch
import torch_geometric.nn as pyg

from mgic_geo import MGICGraphConv, grouped

SIZES = {"group_size": 4, "coarse_size": 8}


@pytest.mark.parametrize(
    "conv", [pyg.GCNConv, pyg.EGConv, pyg.GCN2Conv, pyg.SAGEConv], ids=lambda c: c.__name__
)
def test_dir_gnn_takes_the_self_loops_away(conv):
    """PyG sets the attribute of the layer that it wraps, whatever layers that is made of."""
    options = {pyg.EGConv: {"num_heads": 2, "num_bases": 2}, pyg.GCN2Conv: {"alpha": 0.1}}.get(conv, {})
    without = {} if conv is pyg.SAGEConv else {"add_self_loops": False}
    x, edge_index = torch.randn(9, 16), torch.randint(9, (2, 30))
    for build in (partial(grouped(conv, 4), 16, 16), partial(MGICGraphConv, 16, 16, conv=conv, **SIZES)):
        net, theirs = pyg.DirGNNConv(build(**options)), pyg.DirGNNConv(build(**options, **without))
        theirs.load_state_dict(net.state_dict())
        if conv is not pyg.GCN2Conv:  # whose initial features DirGNNConv does not hand on
            assert torch.equal(net.eval()(x, edge_index), theirs.eval()(x, edge_index))
        for layer in (net.conv_in, *net.conv_in.modules()):
            assert not getattr(layer, "add_self_loops", False)


def test_loops_that_are_set_reach_cached_graphs_and_split_layers():
    x, edge_index = torch.randn(9, 16), torch.randint(9, (2, 30))
    layer, other = (grouped(pyg.GCNConv, 2)(16, 16, cached=True, add_self_loops=v) for v in (True, False))
    other.load_state_dict(layer.state_dict())
    before = layer(x, edge_index)
    layer.add_self_loops = False
    torch.testing.assert_close(layer(x, edge_index), other(x, edge_index))
    small = torch.cat([part(x[:, 8 * g : 8 * g + 8], edge_index) for g, part in enumerate(layer.split())], 1)
    torch.testing.assert_close(small, other(x, edge_index))
    layer.add_self_loops = True
    assert torch.equal(layer(x, edge_index), before)
    with pytest.raises(AttributeError, match=r"SAGEConv.* has no self-loops to add; add them to the graph"):
        MGICGraphConv(16, 16).add_self_loops = True
