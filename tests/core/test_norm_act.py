import copy

import compiled
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from mgic_geo.core import norm_native
from mgic_geo.core.norm_act import norm_act
from mgic_geo.native import plain_torch

pytestmark = compiled.needed


of_any_size = compiled.of_any_size(norm_native)


def layers(channels=16, act=None, images=False, **options):
    torch.manual_seed(0)
    norm = (nn.BatchNorm2d if images else nn.BatchNorm1d)(channels, **options)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return nn.Sequential(norm, nn.ReLU() if act is None else act)


def step(layers, x, residual=None):
    return norm_act(x, layers[0], layers[1], residual)


def last(layers, x, residual):
    return norm_act(x, layers[0], layers[1], residual, act_after_add=True)


def rows(*shape, mean=0.0, scale=1.0):
    return mean + scale * torch.randn(*shape, generator=torch.Generator().manual_seed(shape[0]))


slopes = st.sampled_from(
    [nn.Identity(), nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(0.2), nn.LeakyReLU(1)]
)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([2, 7, 129, 255, 256, 257, 1025]), st.sampled_from([16, 32, 48, 112]), slopes,
    st.booleans(), st.sampled_from([0.1, 0.0, None]), st.booleans(), st.sampled_from([1, 2]),
)  # fmt: skip
def test_rows(count, channels, act, beside, momentum, track, threads):
    module = layers(channels, act, momentum=momentum, track_running_stats=track)
    inputs = [rows(count, channels), rows(count, channels)][: 1 + beside]
    with compiled.threads(threads):
        # Of two rows the normalised values are one up to eps, and the gradient nearly vanishes.
        compiled.assert_as_plain(step, module, inputs, 1e-5 if count > 2 else 1e-2)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(2, 9), slopes, st.booleans())
def test_images_of_channels_last(batch, height, width, act, beside):
    inputs = [rows(batch, 32, height, width).to(memory_format=torch.channels_last) for _ in range(2)]
    module = layers(32, act, images=True)
    compiled.assert_as_plain(step, module, inputs[: 1 + beside], 1e-4)
    assert step(module, *inputs).is_contiguous(memory_format=torch.channels_last)
    compiled.assert_as_plain(last, module, inputs, 1e-4)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([7, 129, 256, 257, 1025]), st.sampled_from([16, 48]), slopes, st.sampled_from([1, 2]))
def test_activation_behind_the_sum(count, channels, act, threads):
    with compiled.threads(threads):
        compiled.assert_as_plain(last, layers(channels, act), [rows(count, channels), rows(count, channels)])


@pytest.mark.parametrize("mean", [1e3, -1e3])
def test_a_large_common_part_and_constant_columns(mean):
    x = rows(3000, 16, mean=mean)
    x[:, 3] = mean
    compiled.assert_as_plain(step, layers(), [x, rows(3000, 16)], ignore=["gradient of input 0"])
    x = rows(3000, 16, mean=mean)
    compiled.assert_as_plain(step, layers(act=nn.Identity()), [x])


def test_equal_rows():
    compiled.assert_as_plain(step, layers(), [rows(40, 16).repeat_interleave(10, 0)])


def test_statistics_over_steps():
    for momentum in (None, 0.3):
        ours = layers(momentum=momentum)
        twin = copy.deepcopy(ours)
        for seed in (5, 6, 7):
            x = rows(40 + seed, 16)
            step(ours, x)
            twin(x)
        assert int(ours[0].num_batches_tracked) == 3
        torch.testing.assert_close(ours.state_dict(), twin.state_dict())


def test_threads_do_not_show():
    for form in (step, last):
        compiled.assert_same_on_threads(form, layers(48), [rows(2000, 48), rows(2001, 48)[:2000]])


@pytest.mark.parametrize("act", [nn.Identity(), nn.LeakyReLU(0.2)])
def test_second_derivatives(act):
    for form in (step, last):
        compiled.assert_second_derivatives(form, layers(act=act), [rows(50, 16), rows(51, 16)[:50]])


def test_only_what_is_asked_for():
    x, residual = rows(20, 16), rows(21, 16)[:20].requires_grad_()
    module = layers().requires_grad_(False)
    for create_graph in (False, True):
        with compiled.counted() as calls:
            out = step(module, x, residual)
            (grad,) = torch.autograd.grad(out.square().sum(), residual, create_graph=create_graph)
        assert calls
        torch.testing.assert_close(grad, 2 * out)
    out = step(module, x.requires_grad_(), None)
    out.sum().backward()
    assert module[0].weight.grad is None


def test_changed_in_place_afterwards():
    x, residual = rows(30, 16).requires_grad_(), rows(31, 16)[:30].requires_grad_()
    module, (u, v) = layers(), (2 * x, 2 * residual)
    step(module, u, v).relu_().sum().backward()  # the result is free to be changed
    expected = x.grad.clone()
    x.grad = None
    u, v = 2 * x, 2 * residual
    out = step(module, u, v)
    v.add_(1)  # the residual is not kept
    out.relu().sum().backward()
    torch.testing.assert_close(x.grad, expected)
    u = 2 * x
    out = step(module, u)
    u.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_changed_in_place_behind_the_sum():
    x, residual = rows(30, 16).requires_grad_(), rows(31, 16)[:30].requires_grad_()
    out = last(layers(), x, v := 2 * residual)
    v.add_(1)  # the residual is not kept
    out.sum().backward()
    assert torch.equal(residual.grad, 2.0 * (out > 0))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        last(layers(), x, residual).mul_(2).sum().backward()  # the result is, as of a ReLU
    last(layers(act=nn.Identity()), x, residual).mul_(2).sum().backward()


def test_the_upstream_gradient_is_left_alone():
    x, residual, upstream = rows(30, 16), rows(31, 16)[:30].requires_grad_(), torch.ones(30, 16)
    out = step(layers(), x, residual)
    out.backward(upstream, retain_graph=True)
    out.backward(upstream)
    assert torch.equal(upstream, torch.ones(30, 16))
    assert torch.equal(residual.grad, torch.full((30, 16), 2.0))
    expanded = step(layers(), x.requires_grad_(), residual)
    a, b = (
        torch.autograd.grad(expanded, x, g, retain_graph=True)[0]
        for g in (upstream, torch.ones(1, 1).expand(30, 16))
    )
    assert torch.equal(a, b)


class Own(torch.Tensor):
    pass


class OwnNorm(nn.BatchNorm1d):
    pass


def hooked(listen):
    module = layers()
    listen(module)
    return module


DECLINED = {
    "evaluation": (lambda: layers().eval(), lambda: rows(20, 16)),
    "float64": (lambda: layers().double(), lambda: rows(20, 16).double()),
    "bfloat16": (lambda: layers().bfloat16(), lambda: rows(20, 16).bfloat16()),
    "a stride": (layers, lambda: rows(20, 32)[:, ::2]),
    "three axes": (layers, lambda: rows(4, 16, 5)),
    "images of channels first": (lambda: layers(images=True), lambda: rows(2, 16, 3, 3)),
    "a width of no 16": (lambda: layers(24), lambda: rows(20, 24)),
    "a subclass": (layers, lambda: rows(20, 16).as_subclass(Own)),
    "a lazy sign": (layers, lambda: torch._neg_view(rows(20, 16))),
    "a norm of one's own": (lambda: nn.Sequential(OwnNorm(16), nn.ReLU()), lambda: rows(20, 16)),
    "no scale": (lambda: nn.Sequential(nn.BatchNorm1d(16, affine=False), nn.ReLU()), lambda: rows(20, 16)),
    "no shift": (
        lambda: hooked(lambda m: m[0].register_parameter("bias", None)), lambda: rows(20, 16)
    ),
    "another activation": (lambda: layers(act=nn.Tanh()), lambda: rows(20, 16)),
    "a falling activation": (lambda: layers(act=nn.LeakyReLU(-0.5)), lambda: rows(20, 16)),
    "a hook on the norm": (
        lambda: hooked(lambda m: m[0].register_forward_hook(lambda *_: None)), lambda: rows(20, 16)
    ),
    "a hook on the activation": (
        lambda: hooked(lambda m: m[1].register_forward_pre_hook(lambda *_: None)), lambda: rows(20, 16)
    ),
    "a forward of one's own": (
        lambda: hooked(lambda m: setattr(m[0], "forward", lambda x: 2 * x)), lambda: rows(20, 16)
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DECLINED)
def test_declines(case):
    module, x = DECLINED[case]
    module, x = module(), x()
    compiled.assert_declines(lambda x: step(copy.deepcopy(module), x), x)
    assert case != "a subclass" or type(step(module, x)) is Own


def test_a_residual_of_another_shape_or_order():
    x = rows(20, 16)
    for residual in (rows(1, 16), rows(16, 20).t(), rows(20, 16).double(), torch.ones(())):
        compiled.assert_declines(lambda r: step(layers(), x, r), residual)


def test_hooks_on_all_modules_are_heard():
    heard = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: heard.append(type(module)))
    try:
        compiled.assert_declines(lambda: step(layers(), rows(20, 16)))
    finally:
        handle.remove()
    assert heard[:2] == [nn.BatchNorm1d, nn.ReLU]


def test_autocast_and_one_row():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compiled.assert_declines(lambda: step(layers(), rows(20, 16)))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        step(layers(), rows(1, 16))
    with pytest.raises(RuntimeError, match="running_mean should contain 32 elements"):
        step(layers(16), rows(20, 32))


def test_transforms_take_torchs_operators():
    module, x = layers(track_running_stats=False), rows(20, 16)
    leaf = x.clone().requires_grad_()
    step(module, leaf).square().sum().backward()
    found = torch.func.grad(lambda x: step(module, x).square().sum())(x)
    torch.testing.assert_close(found, leaf.grad)
    weights = dict(module.named_parameters())
    found = torch.func.grad(lambda w: functional_call(module, w, (x,)).square().sum())(weights)
    torch.testing.assert_close(found["0.weight"], module[0].weight.grad)
    compiled.assert_declines(lambda: vmap(lambda x: step(module, x))(rows(3, 20, 16)))
    compiled.assert_declines(lambda: jvp(lambda x: step(module, x), (x,), (torch.ones_like(x),)))


def test_a_backward_that_is_batched_counted_or_plain():
    module, x = layers(), rows(20, 16).requires_grad_()
    out, upstream = step(module, x), rows(3, 20, 16)
    one_by_one = torch.stack([torch.autograd.grad(out, x, g, retain_graph=True)[0] for g in upstream])
    (together,) = torch.autograd.grad(out, x, upstream, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(together, one_by_one)
    for context in (plain_torch(), FlopCounterMode(display=False)):
        with context, compiled.counted() as calls:
            (alone,) = torch.autograd.grad(out, x, upstream[0], retain_graph=True)
        assert not calls
        assert not alone.requires_grad
        torch.testing.assert_close(alone, one_by_one[0])


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = layers()

    def forward(self, x):
        return step(self.layers, x, x)


def test_compiled_and_exported():
    torch.manual_seed(0)
    layer, x = Layer(), rows(20, 16)
    expected = layer(x)
    with compiled.counted() as calls:
        found = torch.compile(layer, backend="eager", fullgraph=True)(x)
        exported = torch.export.export(
            layer, (x,), dynamic_shapes=({0: torch.export.Dim("rows", min=2)},)
        ).module()
    assert not calls
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(exported(x), expected)
    assert exported(rows(33, 16)).shape == (33, 16)


def test_copies_and_pickles_after_use():
    compiled.assert_copies(Layer(), rows(20, 16))
