import copy

import compiled
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mgic_geo.core import norm_native
from mgic_geo.image import MGICBasicBlock2d, conv_native
from mgic_geo.image.conv import conv2d
from mgic_geo.image.conv_native import convolved
from mgic_geo.native import has_avx512, plain_torch

pytestmark = compiled.needed

of_any_size = compiled.of_any_size(norm_native)


@pytest.fixture(scope="module", autouse=True)
def of_any_machine():
    """Where the loops are slow, they are right all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv_native, "has_avx512", lambda: True)
        yield


@pytest.fixture
def ran(monkeypatch):
    """The names of the kernels that ran for a convolution."""
    names, run = [], conv_native.run
    monkeypatch.setattr(conv_native, "run", lambda name, *args: (names.append(name), run(name, *args)))
    return names


def layers(channels=32, group=8, act=None, **options):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(channels, **options)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return nn.Sequential(conv2d(channels, channels, groups=channels // group), norm, act or nn.ReLU())


def step(layers, x, residual=None):
    return convolved(x, *layers, residual)


def images(*shape, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x.to(memory_format=torch.channels_last)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(16, 8), (48, 8), (16, 16), (48, 16)]), st.integers(2, 5), st.integers(1, 7),
    st.integers(2, 35), st.booleans(), st.booleans(),
    st.sampled_from([nn.Identity(), nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(0.2)]),
    st.sampled_from([1, 2]),
)  # fmt: skip
def test_images(widths, batch, height, width, beside, last, act, threads):
    module = layers(*widths, act)
    module = module.to(memory_format=torch.channels_last) if last else module
    inputs = [images(batch, widths[0], height, width, seed=seed) for seed in range(1 + beside)]
    with compiled.threads(threads):
        # Of few pixels the gradient of the kernels is a small difference.
        compiled.assert_as_plain(step, module, inputs, 1e-4 if batch * height * width > 16 else 1e-2)


def test_many_images(ran):
    inputs = [images(35, 32, 4, 5), images(35, 32, 4, 5, seed=1)]
    compiled.assert_as_plain(step, layers(momentum=None), inputs)
    assert "conv_moments" in ran
    assert "conv_norm_grad" in ran
    assert step(layers(), *inputs).is_contiguous(memory_format=torch.channels_last)


def test_threads_do_not_show():
    inputs = [images(37, 32, 4, 5), images(37, 32, 4, 5, seed=1)]
    compiled.assert_same_on_threads(step, layers(), inputs)
    compiled.assert_same_on_threads(step, layers(16, 16), [images(37, 16, 4, 5)])


@pytest.mark.parametrize(
    ("act", "beside"), [(nn.LeakyReLU(0.2), False), (nn.LeakyReLU(0.2), True), (nn.Identity(), True)]
)
def test_second_derivatives(act, beside):
    inputs = [images(3, 16, 4, 5), images(3, 16, 4, 5, seed=1)]
    compiled.assert_second_derivatives(step, layers(16, act=act), inputs[: 1 + beside])


def test_only_what_is_asked_for(ran):
    x, residual = images(3, 32, 4, 5), images(3, 32, 4, 5, seed=1).requires_grad_()
    module = layers().requires_grad_(False)
    out = step(module, x, residual)
    (grad,) = torch.autograd.grad(out.sum(), residual)
    torch.testing.assert_close(grad, (out > 0).float())
    step(module, x.requires_grad_()).sum().backward()
    assert x.grad is not None
    assert module[0].weight.grad is None
    with torch.no_grad():
        assert not step(module, x).requires_grad
    assert ran.count("conv_moments") == 3


def test_changed_in_place_afterwards():
    x, residual = images(3, 32, 4, 5).requires_grad_(), images(3, 32, 4, 5, seed=1).requires_grad_()
    step(layers(), x).mul_(2).sum().backward()  # without a sum the result is free to be changed
    step(layers(act=nn.Identity()), x, residual).mul_(2).sum().backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        step(layers(), x, residual).mul_(2).sum().backward()


def test_upstream_gradients_of_any_order():
    x, module = images(3, 32, 4, 5).requires_grad_(), layers()
    out = step(module, x, x)
    upstream = torch.randn(3, 32, 1, 1)
    found, expected = (
        torch.autograd.grad(out, x, g, retain_graph=True)[0]
        for g in (upstream.expand_as(out), upstream.expand_as(out).contiguous())
    )
    assert torch.equal(found, expected)
    several = torch.randn(2, *out.shape)
    one_by_one = [torch.autograd.grad(out, x, g, retain_graph=True)[0] for g in several]
    (together,) = torch.autograd.grad(out, x, several, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(together, torch.stack(one_by_one))


class OwnConv(nn.Conv2d):
    pass


def hooked(part, listen):
    module = layers()
    listen(module[part])
    return module


def with_conv(**options):
    module = layers()
    module[0] = nn.Conv2d(32, 32, **({"kernel_size": 3, "padding": 1, "groups": 4, "bias": False} | options))
    return module


DECLINED = {
    "other strides": lambda: with_conv(stride=2),
    "another padding": lambda: with_conv(padding=0),
    "a padding by name": lambda: with_conv(padding="same"),
    "a circular padding": lambda: with_conv(padding_mode="circular"),
    "a dilation": lambda: with_conv(dilation=2),
    "another kernel": lambda: with_conv(kernel_size=1),
    "a bias": lambda: with_conv(bias=True),
    "narrow groups": lambda: with_conv(groups=8),
    "wide groups": lambda: with_conv(groups=1),
    "a weight that is computed": lambda: hooked(0, nn.utils.parametrizations.weight_norm),
    "a hook on the convolution": lambda: hooked(0, lambda m: m.register_forward_hook(lambda *_: None)),
    "a hook on the normalisation": lambda: hooked(1, lambda m: m.register_forward_hook(lambda *_: None)),
    "a hook on the activation": lambda: hooked(2, lambda m: m.register_forward_hook(lambda *_: None)),
    "evaluation": lambda: layers().eval(),
    "no scale": lambda: layers_without_scale(),
    "another normalisation": lambda: nn.Sequential(conv2d(32, 32, groups=4), nn.GroupNorm(2, 32), nn.ReLU()),
    "another activation": lambda: layers(act=nn.Hardswish()),
}


def layers_without_scale():
    module = layers()
    module[1] = nn.BatchNorm2d(32, affine=False)
    return module


@pytest.mark.parametrize("case", DECLINED)
def test_declines(case, ran):
    module, x = DECLINED[case](), images(3, 32, 5, 6)
    found = step(copy.deepcopy(module), x)
    assert not ran
    with plain_torch():
        torch.testing.assert_close(found, step(copy.deepcopy(module), x))


def test_declines_other_inputs(ran):
    for x in (torch.randn(3, 32, 5, 6), images(3, 32, 5, 6).double()):
        module = layers().to(x.dtype)
        compiled.assert_declines(lambda x: step(copy.deepcopy(module), x), x)  # noqa: B023
    with torch.autocast("cpu", torch.bfloat16):
        assert step(layers(), images(3, 32, 5, 6)).isfinite().all()
    step(layers(), images(3, 32, 5, 6), torch.randn(3, 32, 5, 6))
    for residual in (torch.randn(32, 1, 1), images(1, 32, 5, 6)):
        step(layers(), images(3, 32, 5, 6), residual)
    with compiled.threads(4):
        step(layers(), images(3, 32, 5, 6))
    assert not ran
    with pytest.raises(RuntimeError, match="to have 32 channels"):
        step(layers(), images(3, 16, 5, 6))


def test_declines_convolutions_that_change_the_width(ran):
    """Even if the normalisation is of the input's width, which the loops would take for the output's."""
    module = layers()
    module[0] = conv2d(32, 64, groups=4)
    with pytest.raises(RuntimeError, match="should contain 64 elements"):
        step(module, images(3, 32, 5, 6))
    assert not ran


def test_declines_slow_machines(ran, monkeypatch):
    monkeypatch.setattr(conv_native, "has_avx512", lambda: False)
    compiled.assert_as_plain(step, layers(), [images(3, 32, 5, 6)])  # the normalisation alone is compiled
    assert not ran
    with plain_torch():
        assert has_avx512() in (True, False)


def test_blocks_in_channels_first(ran):
    torch.manual_seed(0)
    block = MGICBasicBlock2d(32, 64, stride=2, group_size=8, coarse_size=16, correction_scale=1.0)
    x = torch.randn(6, 32, 7, 9)
    compiled.assert_as_plain(lambda block, x: block(x), block, [x], 1e-4)
    assert ran.count("conv_norm_grad") == 6  # two a level
    out = block(x)
    assert out.is_contiguous()
    assert block(x.to(memory_format=torch.channels_last)).is_contiguous(memory_format=torch.channels_last)
    ran.clear()
    dense = MGICBasicBlock2d(32, 32, group_size=32)
    others = (dense, MGICBasicBlock2d(32, 32, group_size=8, act_layer=nn.SiLU, coarse_size=16))
    for other in (*others, MGICBasicBlock2d(32, 32, group_size=8, coarse_size=16, preactivation=True)):
        compiled.assert_declines(lambda x, other=other: copy.deepcopy(other)(x), x)
    assert not ran


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = layers()

    def forward(self, x):
        return step(self.layers, x, x)


def test_compiled_exported_and_traced():
    layer, x = Layer(), images(3, 32, 4, 5)
    expected = layer(x)
    with compiled.counted() as calls:
        found = torch.compile(layer, backend="eager", fullgraph=True)(x)
        exported = torch.export.export(
            layer, (x,), dynamic_shapes=({0: torch.export.Dim("images", min=2)},)
        ).module()
        traced = torch.fx.symbolic_trace(layer)
        assert not calls
    for ours in (found, exported(x), traced(x)):
        torch.testing.assert_close(ours, expected)


def test_copies_and_pickles_after_use():
    compiled.assert_copies(Layer(), images(3, 32, 4, 5))
