import copy
from functools import partial

import compiled
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgic_geo import GroupedLinear, Prolongation
from mgic_geo.core import correction, norm_native
from mgic_geo.core.correction import corrected

pytestmark = compiled.needed


of_any_size = compiled.of_any_size(norm_native)


@pytest.fixture
def ran(monkeypatch):
    """The names of the kernels that ran for a correction."""
    names, run = [], correction.run
    monkeypatch.setattr(correction, "run", lambda name, *args: (names.append(name), run(name, *args)))
    return names


def layers(fine=64, coarse=32, groups=2, images=False, prolongation=Prolongation, pointwise=None, **options):
    torch.manual_seed(0)
    norm = (nn.BatchNorm2d if images else nn.BatchNorm1d)(fine, **options)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    pointwise = pointwise or (partial(GroupedLinear, channel_dim=1) if images else GroupedLinear)
    return nn.ModuleList([prolongation(coarse, fine, groups, pointwise, init="signed"), norm])


def step(layers, fine, coarse, restricted):
    return corrected(fine, coarse, restricted, *layers)


def inputs(count, fine=64, coarse=32, mean=0.0):
    torch.manual_seed(count)
    return [mean + torch.randn(count, width) for width in (fine, coarse, coarse)]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([3, 7, 127, 129, 1023, 1025, 2100]), st.sampled_from([8, 16, 24, 40, 64]),
    st.sampled_from([16, 32, 48]), st.integers(1, 3), st.sampled_from([1, 2]), st.booleans(),
    st.sampled_from([0.1, None]),
)  # fmt: skip
def test_rows(count, coarse, fine, groups, threads, track, momentum):
    module = layers(fine * groups, coarse * groups, groups, track_running_stats=track, momentum=momentum)
    with compiled.threads(threads):
        tolerance = 1e-5 if count > 3 else 1e-3  # statistics of a few rows magnify rounding
        compiled.assert_as_plain(step, module, inputs(count, fine * groups, coarse * groups), tolerance)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([7, 129, 1025]), st.sampled_from([(4, 8), (8, 4), (12, 8)]), st.sampled_from([4, 8]))
def test_narrow_groups_in_pairs(count, widths, groups):
    coarse, fine = widths
    module = layers(fine * groups, coarse * groups, groups)
    compiled.assert_as_plain(step, module, inputs(count, fine * groups, coarse * groups))


@pytest.mark.parametrize("size", [(1, 3, 5), (2, 16, 16)])
def test_images_of_channels_last(size):
    batch, *space = size
    images = [x.view(*size, -1).movedim(-1, 1) for x in inputs(batch * space[0] * space[1])]
    module = layers(images=True)
    compiled.assert_as_plain(step, module, images)
    assert step(module, *images).is_contiguous(memory_format=torch.channels_last)


def test_a_large_common_part():
    compiled.assert_as_plain(step, layers(), inputs(2000, mean=1e3))


def test_no_change_is_no_correction():
    module, (fine, coarse, _) = layers(), inputs(300)
    nn.init.zeros_(module[1].bias)
    with compiled.counted() as calls:
        assert torch.equal(step(module, fine, coarse, coarse), fine)
    assert calls
    compiled.assert_as_plain(lambda m, x, c: step(m, x, c, c.clone()), module, [fine, coarse])
    compiled.assert_as_plain(
        lambda m, x: step(m, x, x[:, :32].contiguous(), x[:, 32:].contiguous()), module, [fine]
    )


def test_threads_do_not_show():
    compiled.assert_same_on_threads(step, layers(), inputs(3000))


def test_second_derivatives():
    compiled.assert_second_derivatives(step, layers(), inputs(60))
    compiled.assert_second_derivatives(step, layers(32, 16, 4), inputs(60, 32, 16))


def test_only_what_is_asked_for():
    module, (fine, coarse, restricted) = layers().requires_grad_(False), inputs(40)
    for wanted in (fine, coarse, restricted):
        wanted.requires_grad_()
        for create_graph in (False, True):
            out = step(module, fine, coarse, restricted)
            (grad,) = torch.autograd.grad(out.square().sum(), wanted, create_graph=create_graph)
            assert grad.shape == wanted.shape
            assert bool(grad.abs().sum() > 0)
        wanted.requires_grad_(False)


def test_inputs_are_left_alone():
    tensors = inputs(200)
    before = [x.clone() for x in tensors]
    compiled.outcome(step, layers(), tensors)
    for x, y in zip(tensors, before, strict=True):
        assert torch.equal(x, y)


class OwnProlongation(Prolongation):
    pass


class OwnLinear(GroupedLinear):
    pass


def hooked(place):
    module = layers()
    place(module).register_forward_hook(lambda *_: None)
    return module


DECLINED = {
    "evaluation": lambda: layers().eval(),
    "another map": lambda: nn.ModuleList([layers()[0].map, layers()[1]]),
    "a prolongation of one's own": lambda: layers(prolongation=OwnProlongation),
    "a map of one's own": lambda: layers(pointwise=OwnLinear),
    "a bias": lambda: layers(pointwise=partial(GroupedLinear, bias=True)),
    "no norm": lambda: nn.ModuleList([layers()[0], nn.Identity()]),
    "narrow groups": lambda: layers(coarse=12),
    "a hook": lambda: hooked(lambda m: m[0]),
    "a hook on the map": lambda: hooked(lambda m: m[0].map),
    "a hook on the norm": lambda: hooked(lambda m: m[1]),
}


@pytest.mark.parametrize("case", DECLINED)
def test_declines(case, ran):
    module = DECLINED[case]()
    fine, coarse, restricted = inputs(50, coarse=12 if case == "narrow groups" else 32)
    fast_norm_only = type(module[1]) is nn.BatchNorm1d and not module[1]._forward_hooks and module[1].training
    with compiled.counted() as calls:
        ours = step(copy.deepcopy(module), fine, coarse, restricted)
    assert not ran
    assert len(calls) == (2 if fast_norm_only else 0)  # as norm_act then takes over
    torch.testing.assert_close(ours, fine + module[1](module[0](coarse - restricted)))


def test_declines_a_map_of_the_last_axis_of_images(ran):
    fine, coarse, restricted = (x.to(memory_format=torch.channels_last) for x in torch.randn(3, 2, 16, 4, 16))
    module = layers(16, 16, images=True, pointwise=GroupedLinear)
    ours = step(copy.deepcopy(module), fine, coarse, restricted)
    assert not ran
    torch.testing.assert_close(ours, fine + module[1](module[0](coarse - restricted)))


def test_tensors_that_decline():
    module, (fine, coarse, restricted) = layers(), inputs(40)
    strided = torch.stack([coarse, coarse], 1)[:, 0]
    expected = step(copy.deepcopy(module), fine, coarse, restricted)
    torch.testing.assert_close(step(copy.deepcopy(module), fine, strided, restricted), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled.assert_declines(lambda: step(copy.deepcopy(module), fine, coarse, restricted))
    double = [x.double() for x in (fine, coarse, restricted)]
    compiled.assert_declines(lambda: step(copy.deepcopy(module).double(), *double))


def test_sizes_are_checked_before_memory_is_read():
    module, (fine, coarse, restricted) = layers(), inputs(64)
    for part in (slice(32), (slice(None), slice(24))):
        with pytest.raises((RuntimeError, ValueError)):
            step(module, fine, coarse[part].contiguous(), restricted[part].contiguous())
    with pytest.raises(RuntimeError):
        step(module, fine, coarse, restricted[:7])
    other = copy.deepcopy(module)
    other[0].map.weight = nn.Parameter(other[0].map.weight.detach()[:32])
    with pytest.raises((RuntimeError, ValueError)):
        step(other, fine, coarse, restricted)
    one = restricted[:1]  # broadcast, as the operators do
    expected = step(copy.deepcopy(module), fine, coarse, one.expand(64, 32).contiguous())
    torch.testing.assert_close(step(copy.deepcopy(module), fine, coarse, one), expected)
    images = layers(images=True)
    fine, coarse, restricted = (x.view(1, 8, 8, -1).movedim(-1, 1) for x in (fine, coarse, restricted))
    other = [x.movedim(1, -1).reshape(1, 4, 16, 32).movedim(-1, 1) for x in (coarse, restricted)]
    with pytest.raises(RuntimeError, match="must match the size"):
        step(images, fine, *other)
