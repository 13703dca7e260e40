"""Steps take turns, short ones repeat, and ratios are of the rounds they belong to."""

import time

import pytest
from torch.utils.benchmark import Measurement, TaskSpec

from mgic_geo.timing import Ratio, clock_of, interleave, quartiles, ratio_of


def measured(*times, number=1):
    return Measurement(number, list(times), TaskSpec(stmt="", setup=""))


def test_steps_take_turns_downwards_then_upwards():
    calls = []
    steps = {name: lambda name=name: calls.append(name) for name in "abc"}

    def clock(step, number):
        step()
        return 5.0  # long: no repeats

    times = interleave(steps, 2, clock)
    assert "".join(calls) == "aabbcc" + "abc" + "cba"
    assert all(found.times == [5.0, 5.0] for found in times.values())


def test_short_steps_repeat():
    numbers = []

    def clock(step, number):
        numbers.append(number)
        return 0.004 * number

    times = interleave({"step": lambda: None}, 2, clock)
    assert numbers == [1, 5, 5]  # five of 4 ms last 20 ms
    assert times["step"].times == [0.004, 0.004]
    assert times["step"].median == 0.004


def test_limit_leaves_three_rounds():
    times = interleave({"step": lambda: None}, 9, lambda step, number: 5.0, limit=0)
    assert len(times["step"].times) == 3


def test_ratio_of_medians_with_quartiles_over_rounds():
    slow, fast = measured(4.0, 6.0, 8.0), measured(1.0, 2.0, 4.0)
    found = ratio_of(slow, fast)
    assert found.value == 3.0  # 6 / 2
    assert (found.low, found.high) == (2.5, 3.5)  # of 4, 3, 2
    assert ratio_of(measured(4.0), measured(2.0, number=2)) == Ratio(4.0, 4.0, 4.0)


def test_ratio_in_words():
    assert str(Ratio(12.34, 9.876, 100.04)) == "12.3 × (9.88 to 100.0)"


def test_quartiles_stay_within_the_values():
    assert quartiles([3.0]) == (3.0, 3.0)
    assert quartiles([1.0, 2.0]) == (1.25, 1.75)


def test_clocks():
    def step():
        time.sleep(0.02)

    assert clock_of("cpu")(step, 3) >= 0.06
    assert clock_of("cpu", "cpu")(step, 3) < 0.03  # sleeping takes no processor time
    with pytest.raises(KeyError):
        clock_of("cpu", "sundial")
