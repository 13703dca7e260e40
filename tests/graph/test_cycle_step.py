import copy

import compiled
import cycles
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from mgic_geo import knn
from mgic_geo.core import norm_native
from mgic_geo.graph import graph_cycle, reduce
from mgic_geo.graph.cycle_step import Plan
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.native import plain_torch

pytestmark = compiled.needed


of_any_size = compiled.of_any_size(norm_native)

# Channels that come in and go out, of a group, of the coarsest level; least number of coarsenings.
sizes = st.sampled_from(
    [
        (16, 16, 16, 16, 0), (48, 48, 16, 48, 0), (32, 32, 16, 32, 0), (8, 32, 32, 32, 0),
        (64, 32, 16, 16, 0), (32, 32, 16, 16, 1), (32, 32, 32, 32, 1), (64, 64, 64, 32, 0),
        (96, 96, 48, 48, 0), (8, 96, 32, 48, 0), (160, 160, 32, 80, 0), (16, 64, 16, 16, 0),
        (64, 64, 32, 16, 0), (192, 192, 16, 48, 0), (24, 128, 64, 16, 0),
    ]
)  # fmt: skip
clouds = st.sampled_from(
    [
        (2, 1), (3, 1), (1, 2), (5, 1), (2, 3), (1, 7), (5, 7), (1, 31), (1, 32), (2, 33), (3, 100),
        (33, 5), (70, 3), (2, 127), (1, 129), (1, 255), (2, 256), (1, 257), (1, 400),
    ]
)  # fmt: skip


def assert_as_plain(module, graph, x=None, tolerance=1e-5):
    x = cycles.features(module, graph) if x is None else x
    compiled.assert_as_plain(cycles.whole(graph), module, [x], tolerance, least=0.05)


@settings(max_examples=150, deadline=None)
@given(
    sizes, clouds, st.sampled_from([1, 2, 7, 20, 40]), st.sampled_from([(0.2,), (0,), (1,), (1, 0.2, 0)]),
    st.sampled_from(["random", "signed"]), st.sampled_from([0.1, None]), st.booleans(),
)  # fmt: skip
def test_equals_the_plain_form(sizes, clouds, degree, slopes, init, momentum, track):
    *widths, least = sizes
    module = cycles.layer(*widths, slopes, min_levels=least, transfer_init=init)
    for norm in cycles.norms_of(module):
        norm.momentum = momentum
        if not track:
            norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    count = clouds[0] * clouds[1]
    # Statistics of a few rows magnify rounding.
    tolerance = 5e-5 if count > 20 else 2e-4 if count > 3 else 2e-2
    graph = cycles.graph_of(*clouds, degree)
    x = cycles.features(module, graph)
    assume(x is not None)
    assert_as_plain(module, graph, x, tolerance)


@pytest.mark.parametrize("size", [1025, 1100])
def test_a_cloud_whose_groups_fill_the_cache_one_by_one(size):
    assert_as_plain(cycles.layer(64), cycles.graph_of(1, size, 5))


def test_many_small_clouds():
    assert_as_plain(cycles.layer(16, 64), cycles.graph_of(300, 3, 2))
    plans = (Plan(count, 3, 2, (128, 64), (2, 1), (0, 0), (1e-5,) * 2, (1e-5,), 0) for count in (64, 6400))
    few, many = (plan.scratch(torch.empty(1, 128), 1)[1].numel() for plan in plans)
    assert many < few + 6400 * 3 * 128  # what pieces need, no weights


def test_nearest_neighbours():
    module, x = cycles.layer(), cycles.rows(600, 32)
    assert_as_plain(module, Neighbors.from_table(knn(x.view(2, 300, 32), 20)), x)


@pytest.mark.parametrize("degree", [254, 255])
def test_as_many_neighbours_as_a_byte_tells(degree):
    """Each node's last neighbour is largest, so that its rank is needed."""
    order, module = torch.arange(300), cycles.layer(16, 16, 16, 16)
    graph = Neighbors.from_table((order.view(-1, 1) - degree + 1 + torch.arange(degree)) % 300)
    x = cycles.features(module, graph)
    x[:, 0] = order
    assert_as_plain(module, graph, x)


def test_a_large_common_part():
    """It goes into gradients of weights by its product with a sum that is zero but for rounding."""
    graph = cycles.graph_of(2, 500, 10)
    for module in (cycles.layer(), cycles.layer(32, 32), cycles.layer(64, slopes=(1,))):
        x = cycles.rows(1000, module.in_channels)
        assert_as_plain(module, graph, 30 + x, 2e-3)
        weights = [f"gradient of {name}" for name, _ in module.named_parameters()]
        for least, free in ((1e-5, [*weights, "gradient of input 0"]), (5e-3, weights)):  # maxima may turn
            compiled.assert_as_plain(cycles.whole(graph), module, [1e3 + x], least, free)


def test_equal_nodes_and_repeated_neighbours():
    """Which of equal neighbours gets the gradient is free; what reaches a set of equal nodes is not."""
    repeated, generator = torch.arange(40).repeat_interleave(5), torch.Generator().manual_seed(0)
    step = cycles.whole(Neighbors.from_table(torch.randint(200, (200, 20), generator=generator)))
    for module in (cycles.layer(), cycles.layer(32, 32)):
        x = cycles.rows(40, 32)
        compiled.assert_as_plain(lambda m, x: step(m, x[repeated]), module, [x], least=0.05)


@pytest.mark.parametrize("widths", [(32, 32), (48, 48, 16, 48), (16, 64, 16, 16), (8, 96, 32, 48)])
def test_several_steps_where_it_is_not_one(widths, monkeypatch):
    """Levels and corrections have loops of their graph."""
    monkeypatch.setattr(graph_cycle, "compiled_cycle", lambda *_: None)
    module, graph = cycles.layer(*widths), cycles.graph_of(2, 150, 20)
    x = cycles.features(module, graph)
    compiled.assert_as_plain(lambda module, x: module(x, graph), module, [x], least=0.05)


@pytest.mark.parametrize("clouds", [(1, 333), (2, 257), (70, 3), (1, 1100)])
def test_threads_do_not_show(clouds):
    step = cycles.whole(cycles.graph_of(*clouds, 9))
    for module in (cycles.layer(8, 64), cycles.layer(96, 96, 48, 48), cycles.layer(32, 32)):
        compiled.assert_same_on_threads(
            step, module, [cycles.rows(clouds[0] * clouds[1], module.in_channels)]
        )


@pytest.mark.parametrize("widths", [(32, 32), (32, 64), (64, 64), (16, 64, 16, 16)])
def test_second_derivatives(widths, monkeypatch):
    """Without loops the maximum has none, but for the one that function transforms take."""
    module, graph = cycles.layer(*widths, slopes=(0.2, 1)), cycles.graph_of(2, 30, 5)
    x = cycles.features(module, graph)
    monkeypatch.setattr(cycles.edge_conv, "neighbor_max", lambda y, graph: reduce._plain(y, graph, "amax"))
    compiled.assert_second_derivatives(cycles.whole(graph), module, [x], least=0.01)


def prepared(in_channels=16, count=60, **options):
    """A layer, its step, features, and what comes out of it."""
    module, graph = cycles.layer(in_channels, **options), cycles.graph_of(2, count // 2, 5)
    x = cycles.rows(count, in_channels)
    return module, cycles.whole(graph), x, compiled.outcome(cycles.whole(graph), module, [x])


def assert_same(module, x, out, expected, grad=None):
    """Bit for bit, from a gradient that is the one of ``compiled.outcome`` by default."""
    if grad is None:
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    wanted = {"gradient of input 0": x, **{f"gradient of {n}": p for n, p in module.named_parameters()}}
    wanted = {name: leaf for name, leaf in wanted.items() if leaf.requires_grad}
    assert torch.equal(out, expected["out"])
    found = torch.autograd.grad(out, list(wanted.values()), grad)
    for (name, leaf), value in zip(wanted.items(), found, strict=True):
        assert value.shape == leaf.shape
        assert torch.equal(value, expected[name]), name


def one_by_one(module, x):
    """Each leaf, while it alone requires a gradient."""
    for leaf in (x, *module.parameters()):
        module.requires_grad_(False)
        x.requires_grad_(False)
        yield leaf.requires_grad_()


@pytest.mark.parametrize("in_channels", [16, 64])
def test_only_what_is_asked_for(in_channels):
    module, step, x, expected = prepared(in_channels)
    for _ in one_by_one(module, x):
        assert_same(module, x, step(module, x), expected)
    x.requires_grad_(False)
    module.requires_grad_(True)
    assert_same(module, x, step(module, x), expected)
    module.requires_grad_(False)
    assert torch.equal(step(module, x), expected["out"])
    assert not step(module, x).requires_grad


@pytest.mark.parametrize("in_channels", [16, 64])
def test_operators_give_the_same_gradients(in_channels):
    """Those that can be differentiated again, and batches of them."""
    module, step, x, expected = prepared(in_channels)
    for leaf in one_by_one(module, x):
        out = step(module, x)
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        name = next((name for name, p in module.named_parameters() if p is leaf), "input 0")
        (single,) = torch.autograd.grad(out, leaf, grad, create_graph=True, retain_graph=True)
        (batch,) = torch.autograd.grad(out, leaf, torch.stack([grad, -grad]), is_grads_batched=True)
        for value in (single, batch[0], -batch[1]):
            torch.testing.assert_close(value, expected[f"gradient of {name}"], rtol=1e-4, atol=1e-3)


def test_a_graph_that_is_kept_gives_the_same_again():
    module, step, x, expected = prepared()
    out = step(module, x.requires_grad_())
    leaves = [x, *module.parameters()]
    for keep in (True, True, False):
        grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        found = torch.autograd.grad(out, leaves, grad, retain_graph=keep)
        assert torch.equal(found[0], expected["gradient of input 0"])
        for (name, _), value in zip(module.named_parameters(), found[1:], strict=True):
            assert torch.equal(value, expected[f"gradient of {name}"]), name
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(out.sum(), x)


@pytest.mark.parametrize("in_channels", [16, 64])
def test_strides_do_not_matter(in_channels):
    module, step, x, expected = prepared(in_channels)
    wide = torch.stack([x, x + 1], 2)
    for strided in (x.t().contiguous().t(), wide[..., 0], torch.cat([x, x], 1)[:, :in_channels]):
        assert not strided.is_contiguous()
        leaf = strided.detach().requires_grad_()
        assert_same(module, leaf, step(module, leaf), expected)
    leaf = x.clone().requires_grad_()
    out = step(module, leaf)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    assert_same(module, leaf, out, expected, grad.t().contiguous().t())
    out = step(module, leaf)
    (ones,) = torch.autograd.grad(out, leaf, torch.ones_like(out), retain_graph=True)
    assert torch.equal(torch.autograd.grad(out.sum(), leaf)[0], ones)


def test_features_that_are_kept_elsewhere_or_made_again():
    module, step, x, expected = prepared()
    x.requires_grad_()
    assert_same(module, x, checkpoint(lambda x: step(module, x), x, use_reentrant=False), expected)
    with torch.autograd.graph.save_on_cpu():
        out = step(module, x)
    assert_same(module, x, out, expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("widths", [(32, 32), (64, 64), (16, 64, 16, 16)])
def test_what_is_no_number_is_not_lost(value, widths):
    module, graph = cycles.layer(*widths), cycles.graph_of(2, 30, 5)
    x = cycles.rows(60, module.in_channels)
    x[7, 3] = value
    step, twin = cycles.whole(graph), copy.deepcopy(module)
    with plain_torch():
        plain = step(twin, x)
    ours = step(module, x.requires_grad_())
    assert bool(plain.isnan().any())
    assert torch.equal(ours.isnan(), plain.isnan())
    for own, other in zip(module.buffers(), twin.buffers(), strict=True):
        assert torch.equal(own.isnan(), other.isnan())
    assert bool(torch.autograd.grad(ours.sum(), x)[0].isnan().any())


def test_nothing_of_all_edges_is_kept():
    """Of each level its features, what comes before the normalisation, a byte a value, and the change."""
    nodes, degree, kept = 1000, 20, {}
    module, graph = cycles.layer(16, 128), cycles.graph_of(2, nodes // 2, degree)
    params = sum(p.numel() * p.element_size() for p in module.parameters())

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        cycles.whole(graph)(module, cycles.rows(nodes, 16).requires_grad_())
    levels = sum(width * (4 + 4 + 1) + width * 4 * (j > 0) for j, width in enumerate(module.hierarchy.widths))
    values = nodes * (levels + 16 * 4 + degree * 4)
    assert 0.8 * values < sum(kept.values()) < 1.02 * values + 3 * params


def test_inputs_are_left_alone():
    module, graph, x = cycles.layer(), cycles.graph_of(2, 30, 5), cycles.rows(60, 32)
    before, state = (x.clone(), graph.col.clone(), graph.col32.clone()), copy.deepcopy(module.state_dict())
    out = cycles.whole(graph)(module, x)
    grad = torch.ones_like(out)
    out.backward(grad)
    assert bool((grad == 1).all())
    for value, own in zip((x, graph.col, graph.col32), before, strict=True):
        assert torch.equal(value, own)
    for name, value in module.named_parameters():
        assert torch.equal(value, state[name])


def test_training_without_gradients():
    module, step, x, expected = prepared()
    for mode in (torch.no_grad, torch.inference_mode):
        twin = copy.deepcopy(module)
        with mode():
            assert torch.equal(step(twin, x), expected["out"])
        for name, value in twin.named_buffers():
            assert torch.equal(value.double(), expected[name])


def test_what_changes_after_the_step_is_noticed():
    module, step, x, _ = prepared()
    cycle = module.cycle
    for leaf in (x, module.shortcut.weight, cycle.norms[0].weight, cycle.restrictions[0].map.weight):
        out = step(module, x.requires_grad_())
        with torch.no_grad():
            leaf.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()
