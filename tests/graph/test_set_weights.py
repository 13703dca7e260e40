"""Weights that something else sets: pruning, weight and spectral norms, by hooks and by properties."""

import copy
import warnings

import compiled
import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch_geometric.nn.dense.linear import Linear

from mgic_geo import EdgeConv, GroupedLinear, MGICGraphConv, fuse, grouped, knn
from mgic_geo.benchmark.pyg_layers import example_graph, inputs_of, options_of
from mgic_geo.graph.grouped.fast import FAST
from mgic_geo.graph.neighbors import Neighbors

path = compiled.paths()

NODES = 96


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def old_norm(linear):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch announces its end
        nn.utils.weight_norm(linear)


def without(linear):
    """What a trained module is without its hook or property: a plain weight, made of the present state."""
    for name in ("weight", "bias"):
        if parametrize.is_parametrized(linear, name):
            parametrize.remove_parametrizations(linear, name)
        elif any(getattr(hook, "_tensor_name", "") == name for hook in linear._forward_pre_hooks.values()):
            prune.remove(linear, name)
    if any(type(hook).__name__ == "WeightNorm" for hook in linear._forward_pre_hooks.values()):
        nn.utils.remove_weight_norm(linear)


def pruned(linear):
    prune.l1_unstructured(linear, "weight", 0.5)
    if linear.bias is not None:
        prune.random_unstructured(linear, "bias", 0.5)


WAYS = {
    "prune": pruned,
    "weight_norm": old_norm,
    "parametrize": lambda linear: parametrize.register_parametrization(linear, "weight", Halved()),
    "parametrized weight_norm": parametrizations.weight_norm,
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
way = pytest.mark.parametrize("way", [WAYS["prune"], WAYS["parametrize"]], ids=["prune", "parametrize"])


def linears(layer):
    return [module for module in layer.modules() if isinstance(module, Linear | nn.Linear | GroupedLinear)]


LAYERS = [
    conv
    for conv in FAST
    if linears(grouped(conv, 2)(8, 8, **options_of(conv)))
    and conv is not pyg.TAGConv  # which runs the forward of its maps past all hooks, in PyG as well
]


def applied(layer, way):
    for linear in linears(layer):
        way(linear)
    return layer


def assert_follows(build, inputs, way):
    """Two steps of training, then their state in another layer: outputs are of the weights of the moment."""
    torch.manual_seed(0)
    layer, other = applied(build(), way), applied(build(), way)
    optimizer = torch.optim.SGD(layer.parameters(), 1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        layer(**inputs).square().mean().backward()
        optimizer.step()
    layer.eval(), other.eval()
    with torch.no_grad():
        # load_state_dict does no more, and PyG's Linear does not save what it is pruned or parametrised by.
        for tensors in (nn.Module.parameters, nn.Module.buffers):
            for old, new in zip(tensors(other), tensors(layer), strict=True):
                old.copy_(new)
        out = layer(**inputs)
        torch.testing.assert_close(other(**inputs), out)
        for linear in linears(other):
            without(linear)
        torch.testing.assert_close(other(**inputs), out)


@way
@pytest.mark.parametrize("conv", LAYERS, ids=lambda conv: conv.__name__)
def test_layers_in_groups(conv, way):
    torch.manual_seed(0)
    options = options_of(conv)
    inputs = inputs_of(conv, torch.randn(NODES, 64), example_graph(NODES, 4), options)
    assert_follows(lambda: grouped(conv, 4)(64, 64, **options), inputs, way)


@every_way
@pytest.mark.parametrize("norm", ["batch_norm", None])
@pytest.mark.parametrize("bias", [False, True])
def test_edge_conv(norm, bias, way):
    torch.manual_seed(0)
    x = torch.randn(4, 256, 32)
    inputs = {"x": x, "edge_index": knn(x, 5)}
    assert_follows(lambda: EdgeConv(32, 32, groups=2, norm=norm, bias=bias), inputs, way)
    pair = {"x": (x[0], x[1]), "edge_index": example_graph(256, 4)}
    assert_follows(lambda: EdgeConv(32, 32, norm=norm, bias=bias), pair, way)


@way
@pytest.mark.parametrize("conv", ["edge", pyg.PNAConv, pyg.GATv2Conv])
def test_cycles(conv, way):
    torch.manual_seed(0)
    x = torch.randn(4 * 128, 64)
    if conv == "edge":
        options, inputs = {}, {"x": x, "edge_index": Neighbors.from_table(knn(x.view(4, 128, 64), 5))}
    else:
        options = options_of(conv)
        inputs = inputs_of(conv, x, example_graph(len(x), 4), options)
    assert_follows(lambda: MGICGraphConv(64, 64, conv=conv, **options), inputs, way)


def test_a_pruned_normalisation():
    torch.manual_seed(0)
    x = torch.randn(2, 512, 32)
    convs = [EdgeConv(32, 32), EdgeConv(32, 32)]
    for conv in convs:
        nn.init.normal_(conv.norm.weight)
        prune.l1_unstructured(conv.norm, "weight", 0.5)
    convs[0](x, knn(x, 5)).sum().backward()
    convs[1].load_state_dict(convs[0].state_dict())
    for mode in (True, False):
        a, b = (conv.train(mode)(x, knn(x, 5)) for conv in convs)
        torch.testing.assert_close(a, b)


def test_global_pruning():
    torch.manual_seed(0)
    x = torch.randn(4, 128, 64)
    layer = MGICGraphConv(64, 64, conv="edge")
    prune.global_unstructured([(m, "weight") for m in linears(layer)], prune.L1Unstructured, amount=0.5)
    before = [linear.weight_orig.clone() for linear in linears(layer)]
    optimizer = torch.optim.SGD(layer.parameters(), 1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        layer(x, knn(x, 5)).square().mean().backward()
        optimizer.step()
    for linear, weight in zip(linears(layer), before, strict=True):
        moved = linear.weight_orig != weight
        assert moved.any()
        assert not moved[linear.weight_mask == 0].any()


def test_spectral_norms():
    torch.manual_seed(0)
    x = torch.randn(2, 64, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch announces its end
        layer = applied(EdgeConv(32, 32, norm=None), nn.utils.spectral_norm)
    for _ in range(30):
        layer(x, knn(x, 5)).sum().backward()
    torch.testing.assert_close(torch.linalg.matrix_norm(layer.lin.weight, 2).item(), 1.0, atol=1e-2, rtol=0)


def test_fused_models_leave_a_pruned_edge_conv():
    torch.manual_seed(0)
    x = torch.randn(2, 64, 32)
    with torch.no_grad():  # a weight with a history has no copy
        layer, other = (applied(EdgeConv(32, 32), pruned).eval() for _ in range(2))
    expected = layer(x, knn(x, 5))
    fused = fuse(other)
    fused.load_state_dict(layer.state_dict())
    torch.testing.assert_close(fused(x, knn(x, 5)), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("build", [lambda: EdgeConv(16, 16), lambda: grouped(pyg.PointNetConv, 2)(16, 16)])
def test_compiles_as_one_graph(build):
    torch.manual_seed(0)
    torch._dynamo.reset()
    layer = applied(build(), pruned)
    inputs = (torch.randn(40, 16), example_graph(40, 4))
    if not isinstance(layer, EdgeConv):
        inputs = (inputs[0], torch.randn(40, 3), inputs[1])
    step = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        step(*inputs)
        for linear in linears(layer):
            linear.weight_orig.mul_(2)
        twin = copy.deepcopy(layer)
        for linear in linears(twin):
            without(linear)
        torch.testing.assert_close(step(*inputs), twin(*inputs), rtol=1e-4, atol=1e-5)
