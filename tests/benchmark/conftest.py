"""Sizes at which every part runs in a blink."""

from __future__ import annotations

import pytest

from mgic_geo.benchmark import Config


@pytest.fixture
def tiny() -> Config:
    """Few points, few channels, two rounds."""
    return Config(
        batch_size=2,
        points=24,
        k=4,
        wide=1,
        channels=(64,),
        pixels=4,
        images=2,
        cloud_sizes=(12, 24),
        batch_sizes=(1, 2),
        rounds=2,
        device="cpu",
    )
