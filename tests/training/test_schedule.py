import math

import pytest

from mgic_geo.training.schedule import rate_factor


def test_warm_up_rises_linearly_to_the_formula() -> None:
    factors = [rate_factor("cosine", step, 100, 10, warmup=1) for step in range(100)]
    assert factors[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert factors[10:] == pytest.approx([(1 + math.cos(math.pi * i / 90)) / 2 for i in range(90)])


def test_poly_and_steps() -> None:
    poly = [rate_factor("poly", step, 4, 2) for step in range(4)]
    assert poly == pytest.approx([(1 - step / 4) ** 0.9 for step in range(4)])
    drops = [rate_factor("steps", step, 180 * 3, 180) for step in range(180 * 3)]
    assert drops == pytest.approx([10.0 ** -(step // 90) for step in range(180 * 3)])


def test_a_warm_up_that_fills_the_run_stays_below_the_peak() -> None:
    assert all(0 < rate_factor("cosine", step, 6, 3, warmup=9) < 1 for step in range(6))
