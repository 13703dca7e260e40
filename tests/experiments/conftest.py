"""Three classes of tiny clouds in a file, and the experiments as functions."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mgic_geo.datasets import PointClouds, write_clouds

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An HDF5 file with 16 training and 6 test clouds of 24 points: balls, discs and needles."""
    generator = torch.Generator().manual_seed(0)

    def split(size: int) -> PointClouds:
        labels = torch.arange(size) % 3
        extent = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.05], [0.05, 0.05, 1.0]])[labels]
        points = torch.randn(size, 24, 3, generator=generator) * extent[:, None]
        points = points - points.mean(1, keepdim=True)
        points = points / points.norm(dim=-1).amax(1)[:, None, None]
        return PointClouds(points, labels, tuple(f"{i:02}" for i in range(size)), ("ball", "disc", "needle"))

    path = tmp_path_factory.mktemp("data") / "tiny.h5"
    write_clouds(path, split(16), split(6))
    return path


@pytest.fixture
def script() -> Callable[[str], Callable[[list[str]], None]]:
    """Give the ``main`` of an experiment by its name."""

    def load(name: str) -> Callable[[list[str]], None]:
        spec = importlib.util.spec_from_file_location(f"experiments_{name}", EXPERIMENTS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module.main

    return load
