"""What a whole cycle as one step costs a training, and leaves behind in it."""

import copy

import compiled
import cycles
import pytest
import torch

from mgic_geo import EdgeConv, MGICDynamicEdgeConv, MGICGraphConv
from mgic_geo.graph.cycle_native import compiled_cycle
from mgic_geo.graph.cycle_step import Plan
from mgic_geo.native import plain_torch

pytestmark = compiled.needed


def plan(width, ahead):
    return Plan(2, 1000, 10, (width, width // 2), (width // 16, 1), (0.2, 0.2), (1e-5, 1e-5), (1e-5,), ahead)


def test_scratch_grows_with_the_parameters():
    x = torch.empty(2000, 1024, device="meta")
    pieces = 8
    # A convolution in groups of 16, its bias, the map up, and what that has to do with itself.
    weights = 1024 * (2 * 16 + 1 + 8 + 8)
    task = torch.get_num_threads() * 1001 * 2 * 1024
    assert plan(1024, 0).scratch(x, 10)[1].numel() <= pieces * weights + task
    assert plan(1024, 64).scratch(x, 10)[1].numel() <= pieces * (weights + 1024 * 16) + task


def test_wide_groups_are_left_to_several_steps():
    """Some rows of a group are on the stack of each thread."""
    graph = cycles.graph_of(4, 300, 10)
    for width, taken in ((128, True), (144, False)):
        module = MGICGraphConv(width, width, EdgeConv, group_size=width, coarse_size=width).train()
        out = compiled_cycle(module.shortcut, module.cycle, torch.randn(1200, width), graph)
        assert (out is not None) == taken


def test_a_narrow_coarsest_level_is_part_of_it():
    module, graph = MGICGraphConv(64, 128, EdgeConv, coarse_size=16).train(), cycles.graph_of(1, 300, 10)
    assert compiled_cycle(module.shortcut, module.cycle, torch.randn(300, 64), graph) is not None
    few = cycles.graph_of(1, 200, 10)
    assert compiled_cycle(module.shortcut, module.cycle, torch.randn(200, 64), few) is None


def test_a_normalisation_that_serves_twice_sees_both_in_turn():
    torch.manual_seed(0)
    module, graph = MGICGraphConv(64, 64, EdgeConv).train(), cycles.graph_of(4, 300, 10)
    module.cycle.norms[0] = module.cycle.blocks[0].norm
    other, x = copy.deepcopy(module), torch.randn(1200, 64)
    assert compiled_cycle(module.shortcut, module.cycle, x, graph) is not None
    with plain_torch():
        other(x, graph)
    for own, expected in zip(module.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)


def test_gradients_share_no_memory():
    module, graph = MGICGraphConv(64, 64, EdgeConv).train(), cycles.graph_of(4, 300, 10)
    module(torch.randn(1200, 64), graph).square().sum().backward()
    gradients = [part.grad for part in module.parameters()]
    assert len({grad.untyped_storage().data_ptr() for grad in gradients}) == len(gradients)
    assert all(grad.untyped_storage().nbytes() == 4 * grad.numel() for grad in gradients)


@pytest.mark.parametrize("threads", [(1, 2), (2, 1)])
def test_threads_may_change_before_the_gradient(threads):
    torch.manual_seed(0)
    module, graph = MGICGraphConv(64, 64, EdgeConv).train(), cycles.graph_of(3, 400, 10)
    x, before, found = torch.randn(1200, 64), torch.get_num_threads(), []
    try:
        for forth, back in (threads, (1, 1)):
            torch.set_num_threads(forth)
            out = module(x, graph)
            torch.set_num_threads(back)
            found.append(torch.autograd.grad(out.square().sum(), list(module.parameters())))
    finally:
        torch.set_num_threads(before)
    for own, expected in zip(*found, strict=True):
        torch.testing.assert_close(own, expected, rtol=0, atol=0)


def test_another_default_device():
    """What the loops have to know lies where they run."""
    layer, x = MGICDynamicEdgeConv(64, 64, k=20), torch.randn(2, 300, 64)
    expected = layer(x)
    torch.set_default_device("meta")
    try:
        torch.testing.assert_close(layer(x), expected)
    finally:
        torch.set_default_device(None)
