from types import SimpleNamespace

import pytest
import sampling
import torch
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GCNConv
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

from mgic_geo import MGICGCN, MGICGraphSAGE

SIZES = {"group_size": 4, "coarse_size": 8}


@pytest.fixture
def graph():
    return sampling.ring()


class OneHop:
    """As ``NeighborLoader`` with ``num_neighbors=[-1]``, in plain Python."""

    def __init__(self, x, edge_index, batch_size, nodes=None):
        self.data = Data(x=x, edge_index=edge_index)
        self.batches = []
        for seeds in (torch.arange(len(x)) if nodes is None else nodes).split(batch_size):
            nodes, local, _, _ = sampling.sample(edge_index, seeds.tolist(), 1)
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
