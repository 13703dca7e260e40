"""Exponents that are known: of parameters, multiply-adds, and a clock that the modules themselves move."""

import math

import pytest
import torch
from torch import nn

from mgic_geo import MGICBasicBlock2d, MGICLinear, scaling

WIDTHS = [8, 32, 16, 64]


class Clock:
    """Stands still but for what modules take."""

    def __init__(self):
        self.now = 0.0
        self.ran = []

    def __call__(self):
        return self.now


class Slow(nn.Module):
    """Takes ``width ** power`` seconds, and longer the more ran before."""

    def __init__(self, width, power, clock, drift=0.0):
        super().__init__()
        self.width, self.power, self.clock, self.drift = width, power, clock, drift

    def forward(self, x):
        if self.training:  # counting does not take time
            self.clock.now += self.width**self.power * (1 + self.drift * len(self.clock.ran))
            self.clock.ran.append(self.width)
        return x


def test_a_dense_map_is_quadratic():
    found = scaling(lambda width: nn.Linear(width, width, bias=False), WIDTHS, rounds=2)
    assert [row[:3] for row in found.rows] == [(w, w * w, 256 * w * w) for w in sorted(WIDTHS)]
    assert found.exponents.parameters == pytest.approx(2)
    assert found.exponents.multiply_adds == pytest.approx(2)
    assert all(row.milliseconds > 0 for row in found.rows)
    assert (found.threads, found.device) == (torch.get_num_threads(), "cpu")


def test_a_hierarchy_is_linear():
    found = scaling(
        lambda width: MGICBasicBlock2d(width, width, group_size=32, coarse_size=64),
        [64 * 2**i for i in range(7)],
        lambda width: torch.empty(1, width, 8, 8, device="meta"),
        timed=False,
    )
    assert 1 <= found.exponents.parameters <= 1.05
    assert 1 <= found.exponents.multiply_adds <= 1.05
    assert found.exponents.time is None
    assert "time" not in repr(found)


@pytest.mark.parametrize("power", [0.9, 2.0])
def test_time_is_fitted(power):
    clock = Clock()
    found = scaling(lambda width: Slow(width, power, clock), WIDTHS, rounds=3, clock=clock)
    assert found.exponents.time == pytest.approx(power)
    assert [row.milliseconds for row in found.rows] == pytest.approx([1e3 * w**power for w in sorted(WIDTHS)])
    assert math.isnan(found.exponents.parameters)


def test_a_machine_that_slows_down_bends_nothing():
    clock = Clock()
    found = scaling(lambda width: Slow(width, 1.2, clock, drift=0.1), WIDTHS, rounds=6, clock=clock)
    assert found.exponents.time == pytest.approx(1.2, abs=1e-6)
    order = sorted(WIDTHS)
    warm = [width for width in order for _ in range(2)]
    assert clock.ran == warm + (order + order[::-1]) * 3


def test_short_steps_are_repeated():
    clock = Clock()
    scaling(lambda width: Slow(width, -3, clock), [8, 16], rounds=1, clock=clock)  # 2 and 0.24 ms
    assert clock.ran == [8] * 2 + [16] * 2 + [8] * 11 + [16] * 82


def test_backward_reaches_weights_and_inputs():
    seen = []

    class Watched(nn.Linear):
        def forward(self, x):
            if self.training:
                seen.append((x.requires_grad, x.grad, self.weight.grad, torch.is_grad_enabled()))
                if x.requires_grad:
                    hook = x.register_hook(lambda grad: (seen.append("input"), hook.remove())[1])
            return super().forward(x)

    scaling(lambda width: Watched(width, width), [4, 8], lambda width: (torch.ones(2, width),), rounds=1)
    assert {item for item in seen if item != "input"} == {(True, None, None, True)}
    assert seen.count("input") * 2 == len(seen)
    seen.clear()
    scaling(lambda width: Watched(width, width), [4, 8], backward=False, rounds=1)
    assert set(seen) == {(False, None, None, False)}


class OnCuda(torch.Tensor):
    """Says that it lies on a GPU."""

    is_cuda = True


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize(("kind", "last"), [(torch.Tensor, "ran"), (OnCuda, "waited")])
def test_the_clock_is_read_when_the_device_is_done(kind, last, backward, monkeypatch):
    events, seen = [], []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("waited"))

    class Ran(nn.Linear):
        def forward(self, x):
            events.append("ran")
            return super().forward(x)

    def clock():
        seen.append(events[-1])
        return float(len(seen))

    def inputs(width):
        return torch.ones(2, width).as_subclass(kind)

    scaling(lambda w: Ran(w, w), [8, 16], inputs, backward=backward, rounds=2, clock=clock)
    assert seen == [last] * 12


def test_the_table():
    clock = Clock()

    def build(width):
        return nn.Sequential(nn.Linear(width, 2 * width, bias=False), Slow(width, 1, clock))

    found = scaling(build, [1000, 100], rounds=1, clock=clock)
    assert str(found).splitlines() == [
        "| width | parameters | multiply-adds | ms |",
        "| ---: | ---: | ---: | ---: |",
        "| 100 | 20,000 | 5,120,000 | 1e+05 |",
        "| 1,000 | 2,000,000 | 512,000,000 | 1e+06 |",
        "| exponent | 2.00 | 2.00 | 1.00 |",
    ]
    assert repr(found) == "Scaling(100 to 1000 channels: parameters 2.00, multiply-adds 2.00, time 1.00)"


def test_errors_name_value_and_remedy():
    def build(width):
        return MGICLinear(width, width)

    for widths in ([], [64], [64, 64]):
        with pytest.raises(ValueError, match=r"at least two different widths, got \["):
            scaling(build, widths)
    with pytest.raises(ValueError, match="widths must be at least 1, got 0"):
        scaling(build, [0, 4])
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        scaling(build, [2, 4], rounds=0)
