"""The peers compute what our dense network computes, given its weights."""

import pytest
import torch
from torch import nn

from mgic_geo.benchmark import peers
from mgic_geo.benchmark.peers import PlainDGCNN, PlainEdgeConv, PyGDGCNN, cluster_graph, pyg_edge_conv
from mgic_geo.graph import EdgeConv, knn
from mgic_geo.models import DGCNN

SIZES = {"k": 5, "widths": (8, 8, 16), "num_classes": 4, "embedding": 12, "hidden": (10, 6), "dropout": 0.0}


def is_installed(network):
    return network is PlainDGCNN or peers.installed("torch_cluster")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("network", [PlainDGCNN, PyGDGCNN])
def test_network(network, training):
    if not is_installed(network):
        pytest.skip("torch-cluster is not installed")
    torch.manual_seed(0)
    ours = DGCNN(conv="edge", **SIZES).double().train(training)
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight)  # of either sign, and other than in a new network
            nn.init.normal_(module.running_mean, std=0.1)
    theirs = network(**SIZES).double().train(training)
    theirs.load_dense(ours)
    clouds = [torch.randn(3, 20, 3, dtype=torch.double) for _ in range(2)]
    clouds[1].copy_(clouds[0])
    outputs = [model(x.requires_grad_()) for model, x in zip((ours, theirs), clouds, strict=True)]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)
    for out in outputs:
        out.square().sum().backward()
    torch.testing.assert_close(clouds[0].grad, clouds[1].grad, rtol=1e-5, atol=1e-6)
    assert clouds[0].grad.abs().max() > 0
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_defaults_are_ours():
    ours = sum(p.numel() for p in DGCNN(conv="edge").parameters())
    assert sum(p.numel() for p in PlainDGCNN().parameters()) == ours
    assert sum(p.numel() for p in PyGDGCNN().parameters()) == ours


def test_edge_convolutions():
    torch.manual_seed(0)
    x = torch.randn(2, 12, 6, dtype=torch.double)
    ours = EdgeConv(6, 9, act=nn.LeakyReLU(0.2)).double()
    table = knn(x, 4)
    plain, pyg = PlainEdgeConv(6, 9).double(), pyg_edge_conv(6, 9).double()
    plain.load_linear(ours.lin.weight)
    pyg.nn[0].load_state_dict({"weight": ours.lin.weight})
    out = ours(x, table)
    torch.testing.assert_close(plain(x, table), out)
    source = (table + 12 * torch.arange(2).view(-1, 1, 1)).flatten()
    edge_index = torch.stack([source, torch.arange(24).repeat_interleave(4)])
    torch.testing.assert_close(pyg(x.flatten(0, 1), edge_index).view_as(out), out)


def test_cluster_graph():
    pytest.importorskip("torch_cluster")
    x = torch.randn(2, 12, 3)
    edges = cluster_graph(x, 4)
    table = knn(x, 4) + 12 * torch.arange(2).view(-1, 1, 1)
    assert torch.equal(edges[1], torch.arange(24).repeat_interleave(4))
    assert torch.equal(edges[0].view(24, 4).sort().values, table.view(24, 4).sort().values)


@pytest.mark.parametrize(
    ("there", "error"), [(True, None), (True, RuntimeError), (True, OSError), (False, None)]
)
def test_cluster_runs(monkeypatch, there, error):
    def graph(x, k):
        if error:
            raise error("built for something else")

    monkeypatch.setattr(peers, "installed", lambda package: there)
    monkeypatch.setattr(peers, "cluster_graph", graph)
    assert peers.cluster_runs.__wrapped__("cpu") is (there and error is None)
