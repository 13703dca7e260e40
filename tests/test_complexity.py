import copy
import threading

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch.backends import mha

from mgic_geo import EdgeConv, GroupedLinear, complexity, create_model, knn, knn_graph


def test_matrix_products_and_convolutions():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    counted = complexity(model, torch.randn(5, 6))
    assert counted.parameters == 6 * 8 + 8 + 8 * 3 + 3
    assert counted.multiply_adds == 5 * (6 * 8 + 8 * 3)
    assert counted.modules["0"] == (56, 240)
    image = complexity(nn.Conv2d(4, 6, 3, padding=1, groups=2), torch.randn(1, 4, 5, 5))
    assert image.multiply_adds == 25 * 9 * 2 * 6


def test_groups_divide_the_cost():
    x = torch.randn(10, 16)
    assert complexity(GroupedLinear(16, 32, 4), x).multiply_adds == 10 * 4 * 32
    assert complexity(GroupedLinear(16, 32, 4).double(), x.double()).multiply_adds == 10 * 4 * 32


def test_neighbours_count():
    class Graph(nn.Module):
        def forward(self, x):
            return knn(x, 4)

    x = torch.randn(2, 30, 5)
    assert complexity(Graph(), x).multiply_adds == 2 * 30**2 * (5 + 1)
    conv = EdgeConv(5, 7)
    # Two maps of 5 to 7 a node, and 7 comparisons an edge.
    assert complexity(conv, x, knn(x, 4)).multiply_adds == 60 * 2 * 5 * 7 + 60 * 4 * 7


def test_pyg_layers_and_modules():
    x, edges = torch.randn(20, 8), knn_graph(torch.randn(20, 8), 3)
    counted = complexity(pyg.SAGEConv(8, 4), x, edges)
    assert counted.multiply_adds == 2 * 20 * 8 * 4 + 60 * 8
    assert counted.modules["lin_l"] == (36, 640)
    assert counted == complexity(pyg.SAGEConv(8, 4), edge_index=edges, x=x)


def test_a_whole_network():
    model = create_model("mgic_dgcnn").train()
    counted = complexity(model, torch.randn(1, 64, 3))
    assert counted.parameters == sum(p.numel() for p in model.parameters())
    top = [name for name in counted.modules if name and "." not in name]
    inside = sum(counted.modules[name][1] for name in top)
    assert counted.modules["blocks"][1] == sum(counted.modules[f"blocks.{i}"][1] for i in range(4)) > 0
    graphs = 64**2 * (3 + 64 + 64 + 128 + 4)
    assert counted.kinds["k-NN"] == graphs
    assert sum(counted.kinds.values()) == counted.multiply_adds == inside + graphs
    assert all(module.training for module in model.modules())
    frozen = model.blocks[0].eval()
    complexity(model, torch.randn(1, 64, 3))
    assert model.training
    assert not frozen.training


def test_shared_parts_count_once_and_run_twice():
    shared = nn.Linear(4, 4, bias=False)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    counted = complexity(model, torch.randn(3, 4))
    assert (counted.parameters, counted.multiply_adds) == (16, 2 * 3 * 16)
    assert counted.modules == {"": (16, 96), "0": (16, 96), "1": (0, 0)}
    model[2] = nn.Linear(4, 4, bias=False)
    model[2].weight = shared.weight
    assert complexity(model, torch.randn(3, 4)).modules == {
        "": (16, 96),
        "0": (16, 48),
        "1": (0, 0),
        "2": (16, 48),
    }


def test_the_tree():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))
            self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 2, bias=False)))

        def forward(self, x):
            return self.body(x) @ self.scale

    counted = complexity(Net(), torch.randn(3, 4))
    assert str(counted) == counted.tree(2)
    assert counted.tree(2).splitlines() == [
        "module      class       parameters      %  multiply-adds      %",
        "(whole)     Net                 58  100.0            150  100.0",
        "  (itself)                       2    3.4              6    4.0",
        "  body      Sequential          56   96.6            144   96.0",
        "    0       Linear              40   69.0             96   64.0",
        "    2       Sequential          16   27.6             48   32.0",
        "multiply-adds: maps 100.0 %",
    ]
    assert len(counted.tree(0).splitlines()) == 3
    assert (
        counted.tree(9).splitlines()[6] == "      0     Linear              16   27.6             48   32.0"
    )


@pytest.mark.parametrize("name", ["mgic_dgcnn", "lraspp_mgic_mobilenetv3_small"])
def test_the_tree_fits_a_terminal(name):
    points = name == "mgic_dgcnn"
    x = torch.empty(1, 64, 3, device="meta") if points else torch.empty(1, 3, 64, 64, device="meta")
    lines = complexity(create_model(name), x).tree(4).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(set(map(len, lines[:-1]))) == 1  # aligned


def test_an_empty_model():
    counted = complexity(nn.ReLU(), torch.ones(2))
    assert (counted.parameters, counted.multiply_adds) == (0, 0)
    assert str(counted).splitlines()[1].split() == ["(whole)", "ReLU", "0", "0"]


def test_nothing_changes():
    """Weights, statistics, caches, gradients, hooks, lazy widths and random numbers stay."""
    x, edges = torch.randn(20, 8), knn_graph(torch.randn(20, 8), 3)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = pyg.GCNConv(8, 8, cached=True)
            self.norm = nn.BatchNorm1d(8)
            self.lazy = pyg.SAGEConv(-1, 4)

        def forward(self, x, edges):
            x = self.norm(self.conv(x, edges))
            return self.lazy(x + torch.randn_like(x), edges)

    model = Net().train()
    before = copy.deepcopy([model.conv.state_dict(), model.norm.state_dict()])
    state = torch.get_rng_state()
    counted = complexity(model, x, edges)
    assert counted.modules["lazy"] == (2 * 8 * 4 + 4, 2 * 20 * 8 * 4 + 60 * 8)
    assert torch.equal(torch.get_rng_state(), state)
    after = [model.conv.state_dict(), model.norm.state_dict()]
    for old, new in zip(before, after, strict=True):
        assert all(torch.equal(old[key], new[key]) for key in old | new)
    assert model.conv._cached_edge_index is None
    assert isinstance(model.lazy.lin_l.weight, nn.UninitializedParameter)
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(p.grad is None for p in model.conv.parameters())


def test_a_pass_that_fails_changes_nothing():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train()
    with pytest.raises(RuntimeError):
        complexity(model, torch.ones(2, 3))
    assert all(module.training for module in model.modules())
    assert complexity(model, torch.ones(2, 4)).multiply_adds == 32


def test_a_model_that_cannot_be_copied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train()
    model.lock = threading.Lock()
    model[0].eval()
    assert complexity(model, torch.ones(2, 4)).multiply_adds == 32
    assert [module.training for module in model.modules()] == [True, False, True]


@pytest.mark.parametrize(
    ("name", "shape"), [("mgic_dgcnn", (1, 64, 3)), ("mgic_resnet56_g8_c16", (1, 3, 32, 32))]
)
def test_without_data(name, shape):
    model = create_model(name)
    counted = complexity(model, torch.empty(shape, device="meta"))
    assert counted == complexity(model, torch.randn(shape))
    assert all(x.device.type == "cpu" for x in model.state_dict().values())


def test_a_compiled_model():
    assert complexity(torch.compile(nn.Linear(4, 4)), torch.ones(2, 4)).modules == {"": (20, 32)}


def test_modules_that_run_in_other_threads_do_not_count():
    began, go = threading.Event(), threading.Event()

    class Waiting(nn.Module):
        def forward(self, x):
            began.set()
            assert go.wait(10)
            return x

    class Ending(nn.Module):
        def forward(self, x):
            go.set()
            other.join()
            return x

    waiting = Waiting()
    waiting.register_forward_hook(lambda *_: None)  # torch then looks for all hooks as the forward ends
    other = threading.Thread(target=waiting, args=(torch.ones(1),))
    other.start()
    assert began.wait(10)
    counted = complexity(nn.Sequential(Ending(), nn.Linear(4, 3)), torch.randn(2, 4))
    assert counted.modules == {"": (15, 24), "0": (0, 0), "1": (15, 24)}


def test_threads_count_at_once():
    model, found = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), []

    def count():
        found.append(complexity(model, torch.zeros(2, 5, 8)))

    workers = [threading.Thread(target=count) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [complexity(model, torch.zeros(2, 5, 8))] * 4
    assert mha.get_fastpath_enabled()
