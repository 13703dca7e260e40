import pytest
import sampling
import torch
from torch_geometric.nn import GraphSAGE

from mgic_geo import MGICGAT, MGICGCN, MGICGIN, MGICGraphSAGE
from mgic_geo.models.trim_hops import TrimHops

SIZES = {"group_size": 4, "coarse_size": 8}


@pytest.fixture
def graph():
    return sampling.ring()


def models(**kwargs):
    torch.manual_seed(1)
    sizes = {**SIZES, **kwargs}
    return [
        MGICGraphSAGE(8, 16, 3, 5, **sizes),
        MGICGAT(8, 16, 3, 5, **sizes, add_self_loops=False),
        MGICGIN(8, 16, 3, **sizes),
        MGICGraphSAGE(8, 16, 3, 5, jk="cat", **sizes),
    ]


@pytest.mark.parametrize("which", range(4))
def test_seeds_of_a_sampled_batch_get_what_the_whole_graph_gives(which, graph):
    x, edge_index = graph
    net = models()[which].eval()
    assert net.num_hops == [4, 4, 5, 5][which]
    whole = net(x, edge_index)
    nodes, local, found, counts = sampling.sample(edge_index, [7, 30, 31], net.num_hops)
    torch.testing.assert_close(net(x[nodes], local)[:3], whole[[7, 30, 31]])
    if which < 3:  # with jumping knowledge PyG's forward joins layers of different sizes
        trimmed = net(x[nodes], local, num_sampled_nodes_per_hop=found, num_sampled_edges_per_hop=counts)
        torch.testing.assert_close(trimmed[:3], whole[[7, 30, 31]])
        assert len(trimmed) < len(nodes)
    nodes, local, _, _ = sampling.sample(
        edge_index, [7, 30, 31], net.num_hops - 1
    )  # one hop less does not do
    assert not torch.allclose(net(x[nodes], local)[:3], whole[[7, 30, 31]])


def test_degrees_take_a_hop_more_and_no_trimming(graph):
    """GCN weighs an edge by the degrees of both its ends; PyG's does the same."""
    x, edge_index = graph
    torch.manual_seed(1)
    net = MGICGCN(8, 16, 3, 5, **SIZES).eval()
    whole = net(x, edge_index)[[7, 30, 31]]
    nodes, local, found, counts = sampling.sample(edge_index, [7, 30, 31], net.num_hops + 1)
    torch.testing.assert_close(net(x[nodes], local)[:3], whole)
    trimmed = net(x[nodes], local, num_sampled_nodes_per_hop=found, num_sampled_edges_per_hop=counts)
    assert not torch.allclose(trimmed[:3], whole, atol=1e-2)


def test_trimming_is_pygs_where_every_layer_has_one_level(graph):
    x, edge_index = graph
    plain, ours = GraphSAGE(8, 16, 3, 5), MGICGraphSAGE(8, 16, 3, 5, coarse_size=16)
    assert ours.num_hops == 3
    nodes, local, found, counts = sampling.sample(edge_index, [3], 3)
    for layer in (0, 1, 2):
        expected = plain._trim(layer, found, counts, x[nodes], local, None)
        got = ours._trim(layer, found, counts, x[nodes], local, None)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


@pytest.mark.parametrize("sampled", [1, 2, 3, 5, 7])
def test_trims_what_no_seed_will_read(sampled, graph):
    x, edge_index = graph
    nodes, local, found, counts = sampling.sample(edge_index, [3], sampled)
    trim, weight = TrimHops([2, 1]), torch.arange(local.size(1))
    features, edges, rest = x[nodes], local, weight
    for layer, needed in ((0, 3), (1, 1)):
        features, edges, rest = trim(layer, found, counts, features, edges, rest)
        keep = min(sampled, needed)
        assert len(features) == sum(found[: keep + 1])
        assert edges.size(1) == len(rest) == sum(counts[:keep])
