"""Multiply-adds of operators and layers, against counts by hand."""

import functools

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch.nn import functional as F
from torch_geometric import EdgeIndex

from mgic_geo import EdgeConv, MGICBasicBlock2d, MGICGraphConv, complexity, grouped, knn, knn_graph
from mgic_geo.counting import CountingMode
from mgic_geo.graph.edges.linear_propagation import propagate
from mgic_geo.graph.knn_backends import available
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.graph.reduce import neighbor_sum

N, E, IN, OUT = 20, 60, 8, 4
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
    pytest.mark.filterwarnings("ignore:Converting sparse tensor to CSR"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled"),
    pytest.mark.filterwarnings("ignore:index_reduce"),
]


@pytest.fixture
def x():
    return torch.randn(N, IN)


@pytest.fixture
def edges():
    torch.manual_seed(0)
    return knn_graph(torch.randn(N, 3), E // N)


@pytest.fixture
def matrix(edges):
    return torch.sparse_coo_tensor(edges.flip(0), torch.ones(E), (N, N), check_invariants=True).coalesce()


def count(run):
    """What the counter finds while ``run`` runs, by kind."""
    with torch.no_grad(), CountingMode() as mode:
        run()
    return {kind: number for kind, number in mode.kinds.items() if number}


def test_sparse_products(x, matrix):
    by_rows = matrix.to_sparse_csr()
    for run in (
        lambda: matrix @ x,
        lambda: by_rows @ x,
        lambda: torch.sparse.mm(matrix, x),
        lambda: torch.sparse.mm(by_rows, x, "sum"),
        lambda: torch.sparse.mm(by_rows, x, "amax"),
        lambda: torch.sparse.addmm(x, matrix, x),
        lambda: x.T @ matrix,
    ):
        assert count(run) == {"edges": E * IN}
    assert count(lambda: by_rows @ x[:, 0]) == {"edges": E}


def test_products_that_are_added():
    a, b = torch.randn(3, 4, 6), torch.randn(3, 6, 10)
    one, all_ = 4 * 6 * 10, 3 * 4 * 6 * 10
    for inplace in ("", "_"):
        for name, shape, factors, expected in (
            ("addmm", (4, 10), (a[0], b[0]), one),
            ("addmv", (4,), (a[0], b[0, :, 0]), one // 10),
            ("addbmm", (4, 10), (a, b), all_),
            ("baddbmm", (3, 4, 10), (a, b), all_),
        ):
            method = getattr(torch.zeros(shape), name + inplace)
            assert count(lambda method=method, factors=factors: method(*factors)) == {"maps": expected}


def test_a_product_of_two_sparse_matrices(matrix):
    other = torch.sparse_coo_tensor(
        torch.randint(N, (2, 30)), torch.ones(30), (N, N), check_invariants=True
    ).coalesce()
    meet = sum(int(a == b) for a in matrix.indices()[1] for b in other.indices()[0])
    assert count(lambda: matrix @ other) == {"edges": meet}


def test_dense_products(x):
    assert count(lambda: x @ x.T) == {"maps": N * N * IN}
    assert count(lambda: x @ x[0]) == {"maps": N * IN}
    assert count(lambda: torch.addmv(x[:, 0], x, x[0])) == {"maps": N * IN}
    assert count(lambda: x[0] @ x[1]) == {"maps": IN}
    assert count(lambda: torch.einsum("nc,mc->nm", x, x)) == {"maps": N * N * IN}
    assert count(lambda: F.conv_transpose1d(torch.ones(1, 3, 5), torch.ones(3, 2, 4))) == {
        "maps": 3 * 2 * 5 * 4
    }


@pytest.mark.parametrize("points", [10, 30])  # torch takes another way from 25 points on
@pytest.mark.parametrize("mode", ["use_mm_for_euclid_dist_if_necessary", "donot_use_mm_for_euclid_dist"])
def test_distances(points, mode):
    a, b = torch.randn(points, 3), torch.randn(40, 3)
    assert count(lambda: torch.cdist(a, b, compute_mode=mode)) == {"k-NN": points * 40 * 3}


@pytest.mark.parametrize("channels", [3, 16])  # by differences, and by products
@pytest.mark.parametrize("backend", ["torch", "torch_cluster"])
def test_neighbours(channels, backend):
    if backend != "torch" and not available(backend):
        pytest.skip(f"the optional package {backend} is not installed")
    x = torch.randn(3, 40, channels)
    assert count(lambda: knn(x, 4, backend=backend)) == {"k-NN": 3 * 40**2 * (channels + 1)}
    batch = torch.arange(3).repeat_interleave(torch.tensor([20, 60, 40]))
    sizes = 20**2 + 60**2 + 40**2
    graph = count(lambda: knn_graph(x.flatten(0, 1), 4, batch, backend=backend))
    assert graph == {"k-NN": sizes * (channels + 1)}


def test_what_costs_nothing(x, edges):
    assert count(lambda: x.sum(0) + x.mean(0) + (x * x).relu().sum(0)) == {}
    assert count(lambda: F.layer_norm(x, [IN]).softmax(1).topk(3)) == {}
    assert count(lambda: torch.zeros(N).scatter_add(0, edges[1], torch.ones(E))) == {}  # degrees
    assert count(lambda: torch.zeros(N, 1, dtype=torch.long).index_add(0, edges[1], edges.T[:, :1])) == {}


def test_sums_by_index(x, edges):
    messages = x[edges[0]]
    index = edges[1].view(-1, 1).expand(-1, IN)
    for run in (
        lambda: torch.zeros(N, IN).scatter_add(0, index, messages),
        lambda: torch.zeros(N, IN).scatter_add_(0, index, messages),
        lambda: torch.zeros(N, IN).scatter_reduce_(0, index, messages, "amax"),
        lambda: torch.zeros(N, IN).index_add_(0, edges[1], messages),
        lambda: torch.zeros(N, IN).index_reduce(0, edges[1], messages, "mean"),
        lambda: torch.segment_reduce(messages, "sum", lengths=torch.full((N,), E // N)),
        lambda: propagate(x, edges, None, N),
        lambda: torch.ops.mgic_geo.propagate(x, edges[0], edges[1], torch.ones(E), N),
        lambda: neighbor_sum(x, Neighbors.from_edge_index(edges, N)),
    ):
        assert count(run) == {"edges": E * IN}
    assert count(lambda: pyg.global_add_pool(x, torch.zeros(N, dtype=torch.long))) == {"edges": N * IN}


def test_attention(x):
    heads = x.view(1, 2, 10, IN)
    assert count(lambda: F.scaled_dot_product_attention(heads, heads, heads)) == {
        "attention": 2 * 10 * 10 * 2 * IN
    }
    assert count(lambda: (x * x).sum(-1)) == {"attention": N * IN}
    layer = nn.MultiheadAttention(IN, 2, batch_first=True).eval()
    for weights in (True, False):
        found = count(lambda weights=weights: layer(x[None], x[None], x[None], need_weights=weights))
        assert sum(found.values()) == 4 * N * IN**2 + 2 * N**2 * IN


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_in_evaluation(x, device, need_weights):
    """torch has whole layers as one operator there."""
    x, attention = x[None].to(device), 4 * N * IN**2 + 2 * N**2 * IN
    layer = nn.MultiheadAttention(IN, 2, batch_first=True)
    assert complexity(layer, x, x, x, need_weights=need_weights).multiply_adds == attention
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(IN, 2, OUT, batch_first=True), 2)
    assert complexity(encoder, x).multiply_adds == 2 * (attention + 2 * N * IN * OUT)
    assert torch.backends.mha.get_fastpath_enabled()


def test_bilinear(x):
    assert complexity(nn.Bilinear(IN, 3, OUT), x, x[:, :3]).kinds == {"maps": N * OUT * IN * 3}


@pytest.mark.parametrize(("layer", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers(x, layer, gates):
    assert count(lambda: layer(IN, 5)(x.view(5, 4, IN))) == {"maps": 20 * gates * 5 * (IN + 5)}


def test_linear_messages(x, edges, matrix):
    """One product at each node, and one multiply-add an edge and channel, by whatever operators."""
    with_loops = E + N
    for layer in (pyg.GCNConv(IN, OUT), grouped(pyg.GCNConv, 1)(IN, OUT)):
        for graph in (edges, matrix):
            assert complexity(layer, x, graph).kinds == {"maps": N * IN * OUT, "edges": with_loops * OUT}
    fused = complexity(grouped(pyg.GCNConv, 2)(IN, OUT), x, edges)
    assert fused.kinds == {"maps": N * IN * OUT // 2, "edges": with_loops * OUT}
    for aggr in ("mean", "sum", "max"):
        layer = complexity(pyg.SAGEConv(IN, OUT, aggr=aggr), x, edges)
        assert layer.kinds == {"maps": 2 * N * IN * OUT, "edges": E * IN}
        index = EdgeIndex(edges, sparse_size=(N, N)).sort_by("col")[0]
        assert complexity(pyg.SAGEConv(IN, OUT, aggr=aggr), x, index).kinds == layer.kinds
    isomorphism = complexity(pyg.GINConv(nn.Linear(IN, OUT)), x, edges)
    assert isomorphism.kinds == {"maps": N * IN * OUT, "edges": E * IN}


def test_attention_layers(x, edges):
    heads, width = 2, 2 * OUT
    maps, softmax = N * IN * width, 2 * heads  # a maximum and a sum an edge and head
    with_loops = E + N
    assert complexity(pyg.GATConv(IN, OUT, heads), x, edges).kinds == {
        "maps": maps, "edges": with_loops * (softmax + width), "attention": 2 * N * width,
    }  # fmt: skip
    assert complexity(pyg.GATv2Conv(IN, OUT, heads), x, edges).kinds == {
        "maps": 2 * maps, "edges": with_loops * (softmax + width), "attention": with_loops * width,
    }  # fmt: skip
    assert complexity(pyg.TransformerConv(IN, OUT, heads), x, edges).kinds == {
        "maps": 4 * maps, "edges": E * (softmax + width), "attention": E * width,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "passes"),
    [
        (pyg.CGConv, 1),
        (pyg.ResGatedGraphConv, 1),
        (pyg.GENConv, 3),  # a softmax, and the sum it weighs
        (
            functools.partial(
                pyg.PNAConv, aggregators=["mean", "max"], scalers=["identity"], deg=torch.ones(4).long()
            ),
            2,
        ),
    ],
    ids=["CGConv", "ResGatedGraphConv", "GENConv", "PNAConv"],
)
def test_layers_in_groups_by_their_definition(x, edges, layer, passes):
    """Whatever sums the CPU's forms of them are made of."""
    layer, x = grouped(layer, 2)(IN, IN), x[:, :IN]
    found = complexity(layer, x, edges)
    assert found.kinds["edges"] == E * passes * IN
    assert complexity(layer, x.to("meta"), edges.to("meta")).kinds == found.kinds


def test_edge_convolutions(x, edges):
    """Ours: two maps a node; PyG's: one of twice the width an edge."""
    ours = complexity(EdgeConv(IN, OUT), x, edges)
    assert ours.kinds == {"maps": N * 2 * IN * OUT, "edges": E * OUT}
    theirs = complexity(pyg.EdgeConv(nn.Linear(2 * IN, OUT)), x, edges)
    assert theirs.kinds == {"maps": E * 2 * IN * OUT, "edges": E * OUT}


@pytest.mark.parametrize("nodes", [20, 800])  # products of batches, and 1×1 convolutions
def test_a_hierarchy_on_a_graph(nodes):
    """64 in 4 groups, 32 in 2, 16 dense; two maps a level."""
    edges = knn_graph(torch.randn(nodes, 3), 5)
    counted = complexity(MGICGraphConv(64, 64, coarse_size=16), torch.randn(nodes, 64), edges)
    assert counted.kinds == {
        "maps": nodes * 2 * (64 * 16 + 32 * 16 + 16 * 16),
        "transfers": nodes * 2 * (32 * 16 + 16 * 16),
        "edges": 5 * nodes * (64 + 32 + 16),
    }


def test_a_hierarchy_on_images():
    block = MGICBasicBlock2d(64, 64, group_size=16, coarse_size=16)
    assert complexity(block, torch.randn(2, 64, 3, 5)).kinds == {
        "maps": 30 * 2 * 9 * (64 * 16 + 32 * 16 + 16 * 16),
        "transfers": 30 * 2 * (32 * 16 + 16 * 16),
    }
