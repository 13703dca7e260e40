import copy
import itertools

import compiled
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgic_geo import EdgeConv, knn
from mgic_geo.core import norm_native
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.native import plain_torch

pytestmark = compiled.needed


of_any_size = compiled.of_any_size(norm_native)


def layer(width, out, groups=1, act="leaky_relu", **options):
    torch.manual_seed(0)
    conv = EdgeConv(width, out, groups, act=act)
    conv.norm = nn.BatchNorm1d(out, **options)
    nn.init.normal_(conv.norm.weight)
    nn.init.normal_(conv.norm.bias)
    return conv


def points(count, channels, mean=0.0):
    return mean + torch.randn(count, channels, generator=torch.Generator().manual_seed(count))


def graph_of(clouds, size, degree, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Neighbors.from_table(torch.randint(size, (clouds, size, degree), generator=generator))


def on(graph):
    return lambda module, x: module(x, graph)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([*itertools.product([1, 2, 3, 5], [2, 7, 129, 300]), (33, 8), (70, 3)]),
    st.sampled_from([1, 2, 16, 40]),
    st.sampled_from([(3, 16, 1), (8, 48, 1), (13, 32, 1), (64, 64, 1), (32, 64, 2), (24, 48, 3)]),
    st.sampled_from(["relu", "leaky_relu", None]), st.sampled_from([0.1, None]), st.booleans(),
    st.sampled_from([1, 2]),
)  # fmt: skip
def test_as_the_operators(sizes, degree, widths, act, momentum, track, threads):
    (clouds, size), (width, out, groups) = sizes, widths
    conv = layer(width, out, groups, act, momentum=momentum, track_running_stats=track)
    with compiled.threads(threads):
        compiled.assert_as_plain(
            on(graph_of(clouds, size, degree)), conv, [points(clouds * size, width)], tolerance=2e-5
        )


def test_far_from_the_origin_it_is_no_worse_than_the_operators():
    compiled.assert_as_plain(on(graph_of(2, 300, 10)), layer(8, 32), [points(600, 8, 1e3)])


@pytest.mark.parametrize(("clouds", "size"), [(3, 200), (100, 6)])
def test_threads_make_no_difference(clouds, size):
    found = []
    for threads in (1, 2, 7):
        with compiled.threads(threads):
            found.append(compiled.outcome(on(graph_of(clouds, size, 10)), layer(16, 64), [points(600, 16)]))
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name
        assert torch.equal(value, found[2][name]), name


@pytest.mark.parametrize("act", ["leaky_relu", None])
def test_second_derivatives(act):
    graph, x = graph_of(2, 9, 3), points(18, 8)
    compiled.assert_second_derivatives(on(graph), layer(8, 16, act=act), [x], 1e-3, least=1e-3)


@pytest.mark.parametrize(
    "change", ["zero scale", "no shift", "eval", "bias", "tanh", "hook", "float64", "edges"]
)
def test_what_declines_gives_what_the_operators_give(change):
    conv, x, graph = layer(16, 32), points(60, 16), graph_of(2, 30, 5)
    if change == "zero scale":
        nn.init.zeros_(conv.norm.weight[3:4].data)
    elif change == "no shift":
        conv.norm.register_parameter("bias", None)
    elif change == "eval":
        conv.eval()
    elif change == "bias":
        conv.lin.bias = nn.Parameter(torch.randn(32))
    elif change == "tanh":
        conv.act = nn.Tanh()
    elif change == "hook":
        conv.norm.register_forward_hook(lambda *_: None)
    elif change == "float64":
        conv, x = conv.double(), x.double()
    elif change == "edges":
        graph = torch.randint(60, (2, 200), generator=torch.Generator().manual_seed(0))
    twin = copy.deepcopy(conv)
    with compiled.counted() as calls:
        ours = conv(x, graph)
    assert not calls
    with plain_torch():
        assert torch.equal(ours, twin(x, graph))


def test_an_edge_index_of_a_knn_graph_runs_as_its_table():
    x = points(400, 8)
    table = knn(x.view(2, 200, 8), 5)
    conv, edges = layer(8, 32), Neighbors.from_table(table).edge_index
    with compiled.counted() as calls:
        assert torch.equal(conv(x, edges), conv(x, Neighbors.from_table(table)))
    assert calls
