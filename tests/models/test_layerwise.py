"""Sampled batches, built by hand as a neighbour sampler orders them: seeds first, then hop by hop."""

from types import SimpleNamespace

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GCNConv, GraphSAGE
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

from mgic_geo import MGICGAT, MGICGCN, MGICGIN, MGICGraphSAGE
from mgic_geo.models.layerwise import TrimHops

SIZES = {"group_size": 4, "coarse_size": 8}


def sample(edge_index, seeds, hops):
    """Full neighbourhoods: nodes in the order they are found, edges of each hop, and their numbers."""
    nodes, edges, found, frontier = list(seeds), [], [len(seeds)], list(seeds)
    counts = []
    for _ in range(hops):
        chosen = [
            (s, t)
            for t in frontier
            for s, u in zip(*edge_index.tolist(), strict=True)
            if u == t
        ]  # fmt: skip
        frontier = list(dict.fromkeys(s for s, _ in chosen if s not in nodes))
        nodes += frontier
        found.append(len(frontier))
        counts.append(len(chosen))
        edges += chosen
    place = {node: i for i, node in enumerate(nodes)}
    local = torch.tensor([[place[s] for s, _ in edges], [place[t] for _, t in edges]])
    return torch.tensor(nodes), local, found, counts


@pytest.fixture
def graph():
    torch.manual_seed(0)
    ring = torch.arange(60)
    edge_index = torch.cat([torch.stack([ring, (ring + 1) % 60]), torch.randint(60, (2, 20))], dim=1)
    return torch.randn(60, 8), edge_index.unique(dim=1)


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
    nodes, local, found, counts = sample(edge_index, [7, 30, 31], net.num_hops)
    torch.testing.assert_close(net(x[nodes], local)[:3], whole[[7, 30, 31]])
    if which < 3:  # with jumping knowledge PyG's forward joins layers of different sizes
        trimmed = net(x[nodes], local, num_sampled_nodes_per_hop=found, num_sampled_edges_per_hop=counts)
        torch.testing.assert_close(trimmed[:3], whole[[7, 30, 31]])
        assert len(trimmed) < len(nodes)
    nodes, local, _, _ = sample(edge_index, [7, 30, 31], net.num_hops - 1)  # one hop less does not do
    assert not torch.allclose(net(x[nodes], local)[:3], whole[[7, 30, 31]])


def test_trimming_is_pygs_where_every_layer_has_one_level(graph):
    x, edge_index = graph
    plain, ours = GraphSAGE(8, 16, 3, 5), MGICGraphSAGE(8, 16, 3, 5, coarse_size=16)
    assert ours.num_hops == 3
    nodes, local, found, counts = sample(edge_index, [3], 3)
    for layer in (0, 1, 2):
        expected = plain._trim(layer, found, counts, x[nodes], local, None)
        got = ours._trim(layer, found, counts, x[nodes], local, None)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


@pytest.mark.parametrize("sampled", [1, 2, 3, 5, 7])
def test_trims_what_no_seed_will_read(sampled, graph):
    x, edge_index = graph
    nodes, local, found, counts = sample(edge_index, [3], sampled)
    trim, weight = TrimHops([2, 1]), torch.arange(local.size(1))
    features, edges, rest = x[nodes], local, weight
    for layer, needed in ((0, 3), (1, 1)):
        features, edges, rest = trim(layer, found, counts, features, edges, rest)
        keep = min(sampled, needed)
        assert len(features) == sum(found[: keep + 1])
        assert edges.size(1) == len(rest) == sum(counts[:keep])


class OneHop:
    """As ``NeighborLoader`` with ``num_neighbors=[-1]``, in plain Python."""

    def __init__(self, x, edge_index, batch_size, nodes=None):
        self.data = Data(x=x, edge_index=edge_index)
        self.batches = []
        for seeds in (torch.arange(len(x)) if nodes is None else nodes).split(batch_size):
            nodes, local, _, _ = sample(edge_index, seeds.tolist(), 1)
            batch = Data(edge_index=local, n_id=nodes, batch_size=len(seeds))
            self.batches.append(batch)
        self.rounds = 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        self.rounds += 1
        return iter(self.batches)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("options", [{}, {"jk": "last"}, {"norm": "batch_norm"}, {"norm": "graph_norm"}])
def test_inference_level_by_level_equals_the_whole_graph(options, cache, graph):
    x, edge_index = graph
    torch.manual_seed(0)
    net = MGICGraphSAGE(8, 16, 4, 5, **SIZES, **options)
    net(x, edge_index)  # moves the running statistics off their start
    loader = OneHop(x, edge_index, 25)
    out = net.eval().inference(loader, cache=cache)
    torch.testing.assert_close(out, net(x, edge_index))
    assert loader.rounds == (1 if cache else net.num_hops)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"improved": True}, {"add_self_loops": False}, {"normalize": False}, {"jk": "last"}]
)
def test_inference_weighs_edges_by_the_degrees_of_the_whole_graph(options, cache, graph):
    x, edge_index = graph
    edge_index = torch.cat([edge_index[:, edge_index[1] != 9], torch.tensor([[4, 5], [4, 5]])], 1)
    edge_index = edge_index.unique(dim=1)
    torch.manual_seed(0)
    net = MGICGCN(8, 16, 4, 5, **SIZES, **options)
    net(x, edge_index)
    out = net.eval().inference(OneHop(x, edge_index, 25), cache=cache)
    torch.testing.assert_close(out, net(x, edge_index))
    normalise = [m.normalize for m in net.modules() if isinstance(m, GCNConv)]
    assert set(normalise) == {options.get("normalize", True)}


def test_a_failure_leaves_the_layers_normalising(graph):
    net = MGICGCN(8, 16, 2, 5).eval()
    loader = OneHop(*graph, 25)
    loader.batches[1].n_id = None
    with pytest.raises(AttributeError):
        net.inference(loader)
    assert all(conv.normalize for conv in net.modules() if isinstance(conv, GCNConv))


def test_inference_refuses_what_it_cannot_do(graph):
    loader = SimpleNamespace(data=Data(x=graph[0]))
    with pytest.raises(ValueError, match=r"call eval\(\) first"):
        MGICGCN(8, 16, 2, 5).inference(loader)
    with pytest.raises(ValueError, match="jk=None or 'last', got jk='cat'"):
        MGICGCN(8, 16, 2, 5, jk="cat").eval().inference(loader)
    with pytest.raises(ValueError, match=r"got NoneType; .* or call the model on the whole graph"):
        MGICGCN(8, 16, 2, 5).eval().inference(loader)
    sparse = OneHop(*graph, 25)
    sparse.batches[0].adj_t = torch.eye(25).to_sparse()
    with pytest.raises(ValueError, match="leave ToSparseTensor out"):
        MGICGCN(8, 16, 2, 5).eval().inference(sparse)


@pytest.mark.parametrize(
    "nodes", [torch.arange(59, -1, -1), torch.arange(30), torch.arange(65) % 60], ids=len
)
def test_inference_refuses_a_loader_of_other_nodes(nodes, graph):
    for net in (MGICGraphSAGE(8, 16, 2, 5).eval(), MGICGCN(8, 16, 2, 5).eval()):
        with pytest.raises(
            ValueError, match=r"a loader over all nodes in their order.*, got (others|30 of 60)"
        ):
            net.inference(OneHop(*graph, 25, nodes))


@pytest.mark.skipif(not (WITH_PYG_LIB or WITH_TORCH_SPARSE), reason="no neighbour sampler is installed")
def test_neighbor_loader(graph):
    x, edge_index = graph
    net = MGICGraphSAGE(8, 16, 3, 5, **SIZES).eval()
    data, whole = Data(x=x, edge_index=edge_index), net(x, edge_index)
    for batch in NeighborLoader(data, num_neighbors=[-1] * net.num_hops, batch_size=20):
        out = net(batch.x, batch.edge_index)[: batch.batch_size]
        torch.testing.assert_close(out, whole[batch.n_id[: batch.batch_size]])
    torch.testing.assert_close(net.inference(NeighborLoader(data, [-1], batch_size=20)), whole)
