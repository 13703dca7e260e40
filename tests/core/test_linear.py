import io
from itertools import pairwise

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgic_geo import ChannelHierarchy, GroupedLinear, MGICLinear
from mgic_geo.core.linear import keep_scale_, light_groups, start_levels_

widths = st.integers(1, 40)
sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def count(module):
    return sum(p.numel() for p in module.parameters())


@settings(max_examples=25, deadline=None)
@given(widths, widths, sizes, st.booleans())
def test_equals_the_recursive_twin(width_in, width_out, size, bias):
    torch.manual_seed(0)
    layer = MGICLinear(width_in, width_out, *size, bias).double()
    x = torch.randn(2, 3, width_in, dtype=torch.double)
    ours = layer(x)
    assert ours.shape == (2, 3, width_out)
    twin = layer.widen(oracles.v_cycle(layer.cycle, layer.narrow(x.flatten(0, 1))))
    twin = (twin + (layer.bias if bias else 0)).view(2, 3, width_out)
    torch.testing.assert_close(ours, twin)


@settings(max_examples=20, deadline=None)
@given(widths, widths, sizes)
def test_is_a_linear_map_that_couples_everything(width_in, width_out, size):
    torch.manual_seed(0)
    layer = MGICLinear(width_in, width_out, *size, transfer_init="random").double()
    x, y = torch.randn(2, width_in, dtype=torch.double)
    torch.testing.assert_close(layer(x + y) + layer(0 * x), layer(x) + layer(y))
    matrix = torch.autograd.functional.jacobian(layer, x)
    assert bool((matrix.abs() > 0).all())


def test_identity_levels_make_the_identity():
    layer = MGICLinear(48, 48, 8, 8)
    for level in layer.cycle.blocks:
        level.weight.data = torch.eye(level.weight.size(1)).repeat(level.groups, 1)
    nn.init.zeros_(layer.bias)
    x = torch.randn(5, 48)
    torch.testing.assert_close(layer(x), x, rtol=1e-5, atol=1e-5)


def test_parameters_obey_equation_8_and_grow_linearly():
    layer = MGICLinear(256, 256, 16, 32, bias=False)
    assert count(layer.cycle.blocks) == 16 * 256 + 16 * 128 + 16 * 64 + 32 * 32
    counts = [count(MGICLinear(c, 4 * c, 16, 16)) for c in (128, 256, 512, 1024)]
    assert all(1.9 < b / a < 2.1 for a, b in pairwise(counts))


def test_the_cycle_runs_at_the_narrower_width():
    up, down = MGICLinear(64, 256, 16, 16), MGICLinear(256, 64, 16, 16)
    assert up.hierarchy == down.hierarchy == ChannelHierarchy(64, 16, 16)
    assert isinstance(up.narrow, nn.Identity)
    assert isinstance(up.widen, GroupedLinear)
    assert isinstance(down.widen, nn.Identity)
    assert (up.widen.groups, down.narrow.groups) == (4, 16)
    assert "MGICLinear(64, 256, ChannelHierarchy(64 in 4 groups" in repr(up)
    assert "bias=False" in repr(MGICLinear(8, 8, bias=False))


@pytest.mark.parametrize(
    ("width_in", "width_out", "group_size", "groups"), [(64, 256, 16, 4), (96, 64, 24, 4), (7, 30, 4, 1)]
)
def test_light_groups(width_in, width_out, group_size, groups):
    assert light_groups(width_in, width_out, group_size) == groups


@pytest.mark.parametrize("norm", [None, nn.BatchNorm1d], ids=["linear", "normalised"])
@pytest.mark.parametrize("sizes", [(16, 16), (16, 32), (64, 64)], ids=str)
def test_starts_at_the_scale_of_a_linear_layer(sizes, norm):
    torch.manual_seed(0)
    x = torch.randn(512, 256)
    for width in (128, 256, 1024):
        dense, ours = (
            (x @ nn.Linear(256, width).weight.T).std(),
            MGICLinear(256, width, *sizes, bias=False, norm=norm),
        )
        assert 0.8 < ours(x).std() / dense < 1.25


@pytest.mark.parametrize("sizes", [(16, 4096), (4096, 256)])
def test_the_bias_starts_as_that_of_a_linear_layer(sizes):
    torch.manual_seed(0)
    bound = sizes[0] ** -0.5
    assert 0.9 * bound < MGICLinear(*sizes).bias.abs().max() <= bound


def test_each_level_starts_at_the_gain_asked_for():
    torch.manual_seed(0)
    cycle, x = MGICLinear(512, 512, 32, 32, bias=False).cycle, torch.randn(1024, 512)
    for gain in (0.5, 2.0):
        start_levels_(cycle, gain)
        for level in range(cycle.hierarchy.coarsenings + 1):
            outputs = []
            hook = cycle.blocks[level].register_forward_hook(
                lambda m, args, out, keep=outputs: keep.append(out)
            )
            cycle(x)
            hook.remove()
            assert 0.8 < outputs[0].square().mean().sqrt() / gain < 1.25


def test_keep_scale():
    torch.manual_seed(0)
    keep_scale_(weight := torch.empty(512, 256))
    assert 0.9 < (torch.randn(512, 256) @ weight.T).std() < 1.1


def test_autocast_gives_what_a_linear_layer_gives():
    layer, x = MGICLinear(64, 64, 16, 32), torch.randn(8, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == nn.Linear(64, 64)(x).dtype == torch.bfloat16


def test_reset_parameters_redraws_everything():
    torch.manual_seed(0)
    layer = MGICLinear(32, 64, 8, 8)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.reset_parameters()
    assert all(not torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_in_sequential_with_normalised_corrections_and_saved():
    torch.manual_seed(0)
    model = nn.Sequential(MGICLinear(32, 64, 8, 8, norm=nn.BatchNorm1d), nn.ReLU(), MGICLinear(64, 32, 8, 8))
    x = torch.randn(4, 6, 32)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    torch.save(model, file := io.BytesIO())
    file.seek(0)
    again = torch.load(file, weights_only=False)
    torch.testing.assert_close(again.eval()(x), model.eval()(x))


@pytest.mark.parametrize("lead", [(), (5,), (2, 2, 2), (3, 0)], ids=str)
def test_takes_any_leading_dimensions(lead):
    layer, x = MGICLinear(16, 32, 8, 8), torch.randn(*lead, 16)
    assert layer(x).shape == (*lead, 32)
    torch.testing.assert_close(layer(x).reshape(-1, 32), layer(x.reshape(-1, 16)))
    assert torch.equal(layer(input=x), layer(x))  # as torch calls it


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r"expected in_features=8 .* got shape \(2, 9\)"):
        MGICLinear(8, 8)(torch.randn(2, 9))
    with pytest.raises(ValueError, match=r"expected in_features=8 .* got shape \(\)"):
        MGICLinear(8, 8)(torch.tensor(1.0))
    with pytest.raises(ValueError, match="group_size must be at least 1, got 0"):
        MGICLinear(8, 8, 0)


def test_fx_traces_it():
    layer = MGICLinear(16, 32, 8, 8)
    traced = torch.fx.symbolic_trace(layer)
    for lead in ((), (5,), (2, 3)):
        x = torch.randn(*lead, 16)
        assert torch.equal(traced(x), layer(x))
