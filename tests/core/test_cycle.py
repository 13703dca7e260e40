import compiled
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgic_geo import ChannelHierarchy, GroupedLinear, MGICBlock

path = compiled.paths()
plans = st.builds(ChannelHierarchy, st.integers(1, 80), st.integers(1, 24), st.integers(1, 24))


class Residual(nn.Module):
    """x + tanh(W x): a small block with groups."""

    def __init__(self, width, groups):
        super().__init__()
        self.map = GroupedLinear(width, width, groups)

    def forward(self, x):
        return x + self.map(x).tanh()


@settings(max_examples=25, deadline=None)
@given(plans)
def test_identity_blocks_make_the_identity(plan):
    torch.manual_seed(0)
    block = MGICBlock(plan, lambda width, groups: nn.Identity())
    x = torch.randn(6, plan.channels)
    assert torch.equal(block(x), x)


@settings(max_examples=15, deadline=None)
@given(plans)
def test_every_output_channel_depends_on_every_input_channel(plan):
    torch.manual_seed(0)
    block = MGICBlock(plan, Residual, norm=lambda width: nn.Identity()).double()
    x = torch.randn(1, plan.channels, dtype=torch.double)
    jacobian = torch.autograd.functional.jacobian(block, x).squeeze()
    assert bool((jacobian.abs() > 0).all())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 7), st.integers(1, 7), st.integers(0, 7), st.sampled_from([1, 3]))
def test_parameters_obey_equation_8(c, g, s, kernel):
    channels, group_size, coarse_size = 2**c, 2**g, 2**s
    plan = ChannelHierarchy(channels, group_size, coarse_size)
    block = MGICBlock(plan, lambda width, groups: nn.Conv2d(width, width, kernel, groups=groups, bias=False))
    count = sum(p.numel() for p in block.blocks.parameters())
    # A level narrower than a group has one group of its own width.
    fine = sum(min(group_size, width) * width * kernel**2 for width in plan.widths[:-1])
    coarsest = plan.widths[-1] ** 2 * kernel**2
    assert count == fine + coarsest
    assert count <= 2 * group_size * channels * kernel**2 + min(coarse_size, channels) ** 2 * kernel**2


@settings(max_examples=15, deadline=None)
@given(plans, st.booleans())
def test_equals_the_recursive_twin(plan, training):
    torch.manual_seed(0)
    block = MGICBlock(plan, Residual).double().train(training)
    x = torch.randn(5, plan.channels, dtype=torch.double, requires_grad=True)
    ours = block(x)
    block_twin = oracles.v_cycle(block, x)
    torch.testing.assert_close(ours, block_twin)
    upstream = torch.randn_like(ours)
    inputs = [x, *block.parameters()]
    for a, b in zip(
        torch.autograd.grad(ours, inputs, upstream),
        torch.autograd.grad(block_twin, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_arguments_reach_every_level():
    seen = []

    class Spy(nn.Module):
        def forward(self, x, graph, *, weight):
            seen.append((x.size(1), graph, weight))
            return x

    MGICBlock(ChannelHierarchy(16, 4, 4), lambda width, groups: Spy())(torch.randn(2, 16), "graph", weight=3)
    assert seen == [(4, "graph", 3), (8, "graph", 3), (16, "graph", 3)]


def test_images_take_their_own_maps_and_norms():
    block = MGICBlock(
        ChannelHierarchy(16, 4, 4),
        lambda width, groups: nn.Conv2d(width, width, 3, padding=1, groups=groups),
        pointwise=lambda i, o, g: GroupedLinear(i, o, g, channel_dim=1),
        norm=nn.BatchNorm2d,
    )
    assert block(torch.randn(2, 16, 5, 5)).shape == (2, 16, 5, 5)


def test_reset_parameters_redraws_everything():
    torch.manual_seed(0)
    block = MGICBlock(ChannelHierarchy(16, 4, 4), lambda width, groups: GroupedLinear(width, width, groups))
    block(torch.randn(8, 16))
    before = {name: value.clone() for name, value in block.state_dict().items()}
    block.reset_parameters()
    after = block.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in before if name.endswith("map.weight"))
    assert torch.equal(after["norms.0.running_mean"], torch.zeros(16))


def test_repr_shows_the_plan():
    assert "16 in 4 groups -> 8 in 2 groups -> 4 dense" in repr(
        MGICBlock(ChannelHierarchy(16, 4, 4), Residual)
    )


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_the_finest_correction_starts_at_its_scale_and_returns_to_it(scale):
    def block(width, groups):
        return GroupedLinear(width, width, groups)

    cycle = MGICBlock(ChannelHierarchy(16, 4, 4), block, correction_scale=scale)
    for _ in range(2):
        for norm, start in zip(cycle.norms, (scale, 1.0), strict=True):
            assert torch.equal(norm.weight, torch.full_like(norm.weight, start))
            torch.nn.init.constant_(norm.weight, 7.0)
        cycle.reset_parameters()
    without = MGICBlock(
        ChannelHierarchy(16, 4, 4), block, norm=lambda _: torch.nn.Identity(), correction_scale=scale
    )
    assert without(torch.randn(3, 16)).shape == (3, 16)


def test_behind_a_correction_of_nothing_all_levels_train_from_the_second_step_on():
    torch.manual_seed(0)
    cycle = MGICBlock(ChannelHierarchy(32, 4, 4), Residual, correction_scale=0.0)
    optimizer = torch.optim.SGD(cycle.parameters(), lr=0.01)
    sizes = []
    for _ in range(2):
        optimizer.zero_grad()
        cycle(torch.randn(64, 32)).square().mean().backward()
        sizes.append([block.map.weight.grad.norm().item() for block in cycle.blocks])
        optimizer.step()
    assert sizes[0][1:] == [0, 0, 0]
    assert min(sizes[1][1:]) > 1e-6 * sizes[1][0]
