import torch
import torch_geometric.nn as pyg
from torch import nn

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
    # Two maps of 5 to 7 a node, one of the mean, and 7 comparisons an edge.
    assert complexity(conv, x, knn(x, 4)).multiply_adds == 60 * 2 * 5 * 7 + 5 * 7 + 60 * 4 * 7


def test_pyg_layers_and_modules():
    x = torch.randn(20, 8)
    counted = complexity(pyg.SAGEConv(8, 4), x, knn_graph(x, 3))
    assert counted.multiply_adds == 2 * 20 * 8 * 4
    assert counted.modules["lin_l"] == (36, 640)


def test_a_whole_network():
    model = create_model("mgic_dgcnn").train()
    counted = complexity(model, torch.randn(1, 64, 3))
    assert counted.parameters == sum(p.numel() for p in model.parameters())
    top = [name for name in counted.modules if name and "." not in name]
    inside = sum(counted.modules[name][1] for name in top)
    assert counted.modules["blocks"][1] == sum(counted.modules[f"blocks.{i}"][1] for i in range(4)) > 0
    graphs = 64**2 * (3 + 64 + 64 + 128 + 4)
    assert counted.multiply_adds == inside + graphs
    assert all(module.training for module in model.modules())
    frozen = model.blocks[0].eval()
    complexity(model, torch.randn(1, 64, 3))
    assert model.training
    assert not frozen.training
    table = str(counted)
    assert "blocks.3" in table
    assert f"{counted.multiply_adds:,}" in table
