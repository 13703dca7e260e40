import compiled
import pytest
import torch
from torch import nn

from mgic_geo.core import norm_native
from mgic_geo.core.norm_act import norm_act
from mgic_geo.native import plain_torch


@pytest.mark.parametrize(
    ("act", "slope"),
    [
        (None, 1.0),
        (nn.Identity(), 1.0),
        (nn.ReLU(), 0.0),
        (nn.LeakyReLU(0.2), 0.2),
        (nn.LeakyReLU(0), 0.0),
        (nn.LeakyReLU(-0.2), None),
        (nn.ReLU6(), None),
        (torch.relu, None),
    ],
)
def test_slopes(act, slope):
    assert norm_native.slope_of(act) == slope
    if slope is not None and act is not None:
        x = torch.linspace(-3, 3, 7)
        torch.testing.assert_close(act(x), torch.where(x > 0, x, slope * x))


def test_hooked_activations_have_no_slope():
    act = nn.ReLU()
    handle = act.register_forward_hook(lambda *_: None)
    assert norm_native.slope_of(act) is None
    handle.remove()
    assert norm_native.slope_of(act) == 0


def test_rows_share_memory():
    x = torch.randn(2, 5, 3, 4)
    assert norm_native.rows_of(x) is None
    last = x.to(memory_format=torch.channels_last)
    rows = norm_native.rows_of(last)
    assert rows.data_ptr() == last.data_ptr()
    assert torch.equal(rows, x.movedim(1, -1).reshape(-1, 5))
    flat = torch.randn(4, 6)
    assert norm_native.rows_of(flat) is flat
    for other in (flat.t(), flat[0], torch.randn(2, 3, 4)):
        assert norm_native.rows_of(other) is None


@compiled.needed
def test_small_steps_are_left_to_torch():
    norm = nn.BatchNorm1d(64)
    assert norm_native.fits(norm, 512, 64)
    assert not norm_native.fits(norm, 511, 64)
    assert not norm_native.fits(norm, 512, 32)
    assert not norm_native.fits(norm.eval(), 512, 64)


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, None])
@pytest.mark.parametrize("track", [True, False, "no longer"])
def test_tracks_as_torch_does(momentum, track, counts):
    torch.manual_seed(0)
    ours, twin = (nn.BatchNorm1d(16, momentum=momentum, track_running_stats=bool(track)) for _ in range(2))
    if track == "no longer":  # then the statistics stay as they are
        ours.track_running_stats = twin.track_running_stats = False
    if not counts:  # as of old files
        ours.num_batches_tracked = twin.num_batches_tracked = None
    for _ in range(3):
        x = torch.randn(20, 16)
        twin(x)
        norm_native.track(ours, x.mean(0), x.var(0, correction=0), 20)
    torch.testing.assert_close(ours.state_dict(), twin.state_dict())


@compiled.needed
@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_sums_are_the_gradients_of_weight_and_bias(slope):
    torch.manual_seed(0)
    z, grad = torch.randn(2, 700, 32)
    weight, bias = torch.randn(2, 32).requires_grad_()
    out = norm_native.plain_norm(z, weight, bias, 1e-5, slope)
    expected = torch.autograd.grad(out, (weight, bias), grad)
    mean, var = z.mean(0), z.var(0, correction=0)
    scale = (weight * torch.rsqrt(var + 1e-5)).detach()
    found = norm_native.sums(grad, z, mean, var, scale, bias.detach(), 1e-5, slope)
    torch.testing.assert_close(found[:2], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[2], expected[1] / 700, rtol=1e-4, atol=1e-6)


@compiled.needed
@pytest.mark.parametrize("slope", [0.0, 0.2])
def test_sums_behind_a_sum(slope):
    torch.manual_seed(0)
    z, grad, beside = torch.randn(3, 700, 32)
    weight, bias = torch.randn(2, 32).requires_grad_()
    ahead = beside.requires_grad_() + norm_native.plain_norm(z, weight, bias, 1e-5, 1.0)
    out = nn.functional.leaky_relu(ahead, slope)
    expected = torch.autograd.grad(out, (beside, weight, bias), grad)
    mean, var = z.mean(0), z.var(0, correction=0)
    hidden, *found = norm_native.add_sums(grad, z, out.detach(), mean, var, 1e-5, slope)
    torch.testing.assert_close(hidden, expected[0])
    torch.testing.assert_close(norm_native.plain_grad(grad, out, slope), expected[0])
    torch.testing.assert_close(found[:2], list(expected[1:]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[2], expected[2] / 700, rtol=1e-4, atol=1e-6)


@compiled.needed
@pytest.mark.parametrize("act", [nn.ReLU(), nn.LeakyReLU(0.2)])
@pytest.mark.parametrize("last", [False, True])
def test_minus_infinity_behind_the_normalisation(act, last):
    """A ReLU makes it 0, as torch's does, and no product of infinity and 0."""
    torch.manual_seed(0)
    x, residual, norm = torch.randn(2000, 32), torch.randn(2000, 32), nn.BatchNorm1d(32)
    residual[4, 3] = -torch.inf
    with torch.no_grad():
        norm.bias[5] = -torch.inf

    def outcome():
        return norm_act(x, norm, act, residual, act_after_add=last)

    with compiled.counted() as calls:
        found = outcome()
    assert calls
    with plain_torch():
        torch.testing.assert_close(found, outcome())


@compiled.needed
@pytest.mark.parametrize("size", [1e20, 1e30])
def test_variances_beyond_the_largest_number(size):
    torch.manual_seed(0)
    x, norm = size * torch.randn(2000, 32), nn.BatchNorm1d(32)
    with compiled.counted() as calls:
        found = norm_act(x, norm, nn.ReLU())
    assert calls
    with plain_torch():
        torch.testing.assert_close(found, norm_act(x, nn.BatchNorm1d(32), nn.ReLU()))
    assert bool(norm.running_var.isinf().all())
