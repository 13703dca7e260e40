import copy
import itertools
import pickle
import sys

import compiled
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import jvp

from mgic_geo import EdgeConv, knn
from mgic_geo.graph import edge_native, edge_norm_native, reduce
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.native import plain_torch

pytestmark = compiled.needed
edge_conv = sys.modules["mgic_geo.graph.edge_conv"]


def table(clouds, size, degree, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(size, (clouds, size, degree), generator=generator)


def step_on(graph):
    return lambda module, x: module(x, graph)


def layer(width=32, out=32, groups=2, **options):
    torch.manual_seed(0)
    return EdgeConv(width, out, groups, **{"norm": None, "act": None, **options})


def rows(count, channels, mean=0.0):
    return mean + torch.randn(count, channels, generator=torch.Generator().manual_seed(count))


sizes = [*itertools.product([1, 2, 3, 5], [1, 2, 7, 129, 300]), (32, 9), (33, 8), (70, 3), (129, 2)]
shapes = st.tuples(
    st.sampled_from(sizes), st.sampled_from([1, 2, 16, 40]),
    st.sampled_from([16, 32, 48, 64]), st.sampled_from([1, 2, 3]), st.sampled_from([1, 2]),
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(shapes, st.sampled_from([8, 24, 64]), st.booleans(), st.sampled_from(["relu", "tanh", None]))
def test_layers(shape, width, bias, act):
    (clouds, size), degree, group, groups, threads = shape
    module = layer(width * groups, group * groups, groups, bias=bias, act=act)
    graph = Neighbors.from_table(table(clouds, size, degree))
    with compiled.threads(threads):
        compiled.assert_as_plain(step_on(graph), module, [rows(clouds * size, width * groups)])


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("groups", [1, 3])
def test_what_is_no_number_reaches_all_that_gather_it(groups, broken):
    module, x = layer(16 * groups, 16 * groups, groups).eval(), rows(64, 16 * groups)
    graph = Neighbors.from_table(table(2, 32, 6))
    x[5] = broken
    with torch.no_grad():
        ours = module(x, graph)
        with plain_torch():
            twin = module(x, graph)
    source, target = graph.edge_index
    reached = torch.zeros(64, dtype=torch.bool)
    reached[[5, *target[source == 5].tolist()]] = True
    assert torch.equal(~ours.isfinite().all(1), reached)
    torch.testing.assert_close(ours, twin, equal_nan=True)


@pytest.mark.parametrize("degree", [254, 255, 256])
def test_as_many_neighbours_as_a_byte_tells(degree):
    """Each node's last neighbour is largest, so that its rank is needed."""
    x = rows(300, 16)
    order = torch.arange(300)
    graph = Neighbors.from_table((order.view(-1, 1) - degree + 1 + torch.arange(degree)) % 300)
    x[:, 0] = order
    module = layer(16, 16, 1)
    if degree < 256:
        compiled.assert_as_plain(step_on(graph), module, [x])
    else:
        compiled.assert_declines(lambda: module(x, graph))


def test_a_large_common_part():
    graph = Neighbors.from_table(table(2, 500, 10))
    compiled.assert_as_plain(step_on(graph), layer(), [rows(1000, 32, 1e3)])


def test_equal_nodes_and_repeated_neighbours():
    """Which of equal neighbours gets the gradient is free; what reaches a set of equal nodes is not."""
    x = rows(40, 32)
    repeated = torch.arange(40).repeat_interleave(5)
    graph = Neighbors.from_table(table(1, 200, 20)[0])
    compiled.assert_as_plain(lambda m, x: m(x[repeated], graph), layer(), [x])


def test_one_cloud_of_points():
    x = rows(1025, 32)
    graph = Neighbors.from_table(knn(x, 20))
    for number in (1, 2):
        with compiled.threads(number):
            compiled.assert_as_plain(step_on(graph), layer(), [x])


@pytest.mark.parametrize(("clouds", "size"), [(1, 333), (2, 333), (3, 333), (70, 7)])
def test_threads_do_not_show(clouds, size):
    x, graph = rows(clouds * size, 48), Neighbors.from_table(table(clouds, size, 9))
    compiled.assert_same_on_threads(step_on(graph), layer(48, 64, 1, bias=True), [x])


@pytest.mark.parametrize("norm", [None, "batch_norm"])
def test_many_small_clouds_share_their_sums(norm, monkeypatch):
    """Memory for gradients of weights does not grow with them."""
    scratch, module, called = {}, layer(64, 64, 1, norm=norm), edge_native.run
    monkeypatch.setattr(sys.modules["mgic_geo.core.norm_native"], "_LEAST", 0)

    def run(name, *arguments):
        scratch[name] = arguments[-1].numel()
        return called(name, *arguments)

    for native in (edge_native, edge_norm_native):
        monkeypatch.setattr(native, "run", run)
    found = []
    for clouds in (64, 640):
        scratch.clear()
        module(rows(clouds * 4, 64), Neighbors.from_table(table(clouds, 4, 2))).sum().backward()
        found.append({name: size for name, size in scratch.items() if name.endswith("_grad")})
    assert found[0] == found[1] != {}


def test_second_derivatives(monkeypatch):
    """Without loops the maximum has none, but for the one that function transforms take."""
    monkeypatch.setattr(edge_conv, "neighbor_max", lambda y, graph: reduce._plain(y, graph, "amax"))
    x, graph = rows(60, 32), Neighbors.from_table(table(2, 30, 5))
    compiled.assert_second_derivatives(step_on(graph), layer(bias=True), [x])


def test_biases_of_both_maps():
    """Each is a value's summand."""
    x, weight, bias = rows(60, 32), rows(64, 16).requires_grad_(), rows(64, 1).view(-1).requires_grad_()
    graph = Neighbors.from_table(table(2, 30, 5))
    out = edge_native.edge_conv(x, weight, bias, graph, 2)
    (grad,) = torch.autograd.grad(out, bias, out.detach(), retain_graph=True)
    (twice,) = torch.autograd.grad(out, bias, out.detach(), create_graph=True)
    torch.testing.assert_close(grad, twice)
    torch.testing.assert_close(grad.view(2, 2, 16).sum(1), 2 * out.detach().sum(0).view(2, 16))


def test_only_what_is_asked_for():
    x, graph, module = rows(60, 32), Neighbors.from_table(table(2, 30, 5)), layer(bias=True)
    for wanted in (x, *module.parameters()):
        module.requires_grad_(False)
        wanted.requires_grad_()
        for create_graph in (False, True):
            with compiled.counted() as calls:
                out = module(x, graph)
                (grad,) = torch.autograd.grad(out.square().sum(), wanted, create_graph=create_graph)
            assert calls
            assert bool(grad.abs().sum() > 0)
        x.requires_grad_(False)


def test_inputs_are_left_alone():
    x, own = rows(60, 32), table(2, 30, 5)
    graph = Neighbors.from_table(own)
    before = x.clone(), graph.col.clone()
    compiled.outcome(step_on(graph), layer(), [x])
    assert torch.equal(x, before[0])
    assert torch.equal(graph.col, before[1])


@pytest.mark.parametrize(
    "graph",
    [
        table(1, 60, 5)[0].t().reshape(-1, 60)[:2, :40],
        torch.stack([torch.randint(60, (200,)), torch.randint(60, (200,))]),
        Neighbors(torch.arange(61) * 5, table(1, 60, 5).flatten(), 60),
        Neighbors(torch.arange(61).int() * 5, table(1, 60, 5).flatten().int(), 60, degree=5),
    ],
)
def test_graphs_that_decline(graph):
    x = rows(60, 32)
    compiled.assert_declines(lambda: layer()(x, graph))
    module = layer(24, 24, 1)
    compiled.assert_declines(lambda: module(rows(60, 24), Neighbors.from_table(table(1, 60, 5)[0])))


def test_sizes_are_checked_before_memory_is_read():
    x, graph = rows(60, 32), Neighbors.from_table(table(1, 60, 5)[0])
    with pytest.raises(ValueError, match="in_channels=64"):
        layer(64, 32)(x, graph)
    with pytest.raises(ValueError, match="graph has 60 source"):
        layer()(rows(50, 32), graph)
    weight = rows(32, 32)
    assert edge_native.fits(x, weight, graph, 2)
    uneven = Neighbors(graph.rowptr, graph.col, 60, clouds=7, degree=5)
    assert not edge_native.fits(x, weight, uneven, 2)
    short = Neighbors(graph.rowptr, graph.col[:-5], 60, degree=5)
    assert not edge_native.fits(x, weight, short, 2)


def test_precision_and_transforms_that_decline():
    x, graph, module = rows(60, 32), Neighbors.from_table(table(2, 30, 5)), layer()
    double = copy.deepcopy(module).double()
    compiled.assert_declines(lambda: double(x.double(), graph))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled.assert_declines(lambda: module(x, graph))
    compiled.assert_declines(lambda: jvp(lambda x: module(x, graph), (x,), (torch.ones_like(x),)))
    compiled.assert_declines(lambda: torch.func.grad(lambda x: module(x, graph).sum())(x))
    clouds = x.view(2, 30, 32), table(2, 30, 5)
    with compiled.counted() as calls:
        expected = module(*clouds)
    assert calls
    found = compiled.assert_declines(torch.compile(module, backend="eager", fullgraph=True), *clouds)
    torch.testing.assert_close(found, expected)


def test_copies_and_pickles_after_use():
    x, graph, module = rows(60, 32), Neighbors.from_table(table(2, 30, 5)), layer()
    module(x, graph).sum().backward()
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        torch.testing.assert_close(twin(x, graph), module(x, graph))


def test_large_dense_layers_are_left_to_products():
    graph, x = Neighbors.from_table(table(4, 5, 2)), torch.empty(20, 1024)
    with compiled.threads(2):
        assert edge_native.fits(x, torch.empty(1024, 128), graph, 16)
        assert not edge_native.fits(x, torch.empty(1024, 2048), graph, 1)
        narrow = torch.empty(20, 256), torch.empty(256, 512)
        assert edge_native.fits(*narrow, graph, 1)
        assert not edge_native.fits(*narrow, Neighbors.from_table(table(1, 20, 2)), 1)  # a task a cloud
