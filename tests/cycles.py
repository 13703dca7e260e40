"""Cycles over EdgeConv levels: layers, graphs and features for the tests of their compiled form."""

import copy
import itertools
import sys

import torch
from torch import nn

from mgic_geo import EdgeConv, MGICGraphConv
from mgic_geo.graph.cycle_native import compiled_cycle
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.native import kernels, plain_torch

edge_conv = sys.modules["mgic_geo.graph.edge_conv"]


def table(clouds, size, degree):
    """(clouds, size, degree) neighbours, all different ones where there are as many."""
    generator = torch.Generator().manual_seed(size)
    if degree > size:
        return torch.randint(size, (clouds, size, degree), generator=generator)
    return torch.rand(clouds, size, size, generator=generator).argsort(-1)[..., :degree].clone()


def graph_of(clouds, size, degree):
    return Neighbors.from_table(table(clouds, size, degree))


def layer(in_channels=32, width=64, group_size=16, coarse_size=32, slopes=(0.2,), **options):
    """Each normalisation has numbers of its own, and slopes take turns."""
    torch.manual_seed(0)
    module = MGICGraphConv(in_channels, width, EdgeConv, group_size, coarse_size, **options)
    for norm in norms_of(module):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    for number, norm in enumerate(norms_of(module)):
        norm.eps = 1e-5 * (number + 1)
    for block, slope in zip(module.cycle.blocks, itertools.cycle(slopes), strict=False):
        block.act = {0: nn.ReLU(), 1: nn.Identity()}.get(slope, nn.LeakyReLU(slope))
    return module


def norms_of(module):
    return [*(block.norm for block in module.cycle.blocks), *module.cycle.norms]


def whole(graph):
    """The layer as one step, which there has to be where there are kernels."""

    def step(module, x):
        out = compiled_cycle(module.shortcut, module.cycle, x, graph)
        assert (out is None) == (kernels() is None)
        return module(x, graph) if out is None else out

    return step


def rows(count, channels, seed=0):
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))


def features(module, graph):
    """(N, C) on which rounding decides no maximum and no sign; None where some draws were no such ones."""
    for seed in range(20):
        x = rows(graph.num_targets, module.in_channels, seed)
        if _margin(module, x, graph) > 3e-6:
            return x
    return None


def _margin(module, x, graph):
    """The least distance of two neighbours that may have a maximum, or of an activation from its kink."""
    found, twin, reduce = [], copy.deepcopy(module).double(), edge_conv.neighbor_max

    def watched(v, graph):
        col = graph.col.view(-1, graph.degree)
        values, best = v[col].max(1)
        others = v[col].masked_fill(col.unsqueeze(-1) == col.gather(1, best).unsqueeze(1), -torch.inf)
        found.append(float((values - others.amax(1)).min()))
        return reduce(v, graph)

    for block in twin.cycle.blocks:
        if not isinstance(block.act, nn.Identity):
            block.norm.register_forward_hook(
                lambda _module, _inputs, out: found.append(float(out.abs().min()))
            )
    edge_conv.neighbor_max = watched
    try:
        with plain_torch(), torch.no_grad():
            twin(x.double(), graph)
    finally:
        edge_conv.neighbor_max = reduce
    return min(found)
