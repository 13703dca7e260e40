"""Tiny data sets, and the experiments as functions and as commands."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import write_image

from mgic_geo.datasets import PointClouds, write_clouds

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
Main = Callable[[list[str]], None]


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


@pytest.fixture(scope="session")
def make_images(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write images of cats (dark) and dogs: ``make_images(name, size, train=8, test=3)`` of each class."""

    def make(name: str, size: Callable[[int], tuple[int, int]], **counts: int) -> Path:
        folder, rng = tmp_path_factory.mktemp("images") / name, np.random.default_rng(0)
        for split, count in counts.items():
            for label, shade in (("cat", 60), ("dog", 150)):
                for number in range(count):
                    pixels = (shade + rng.integers(0, 60, (*size(number), 3))).astype(np.uint8)
                    write_image(folder / split / label / f"{number}.png", pixels)
        return folder

    return make


@pytest.fixture
def script() -> Callable[[str], Main]:
    """Give the ``main`` of an experiment by its name."""

    def load(name: str) -> Main:
        spec = importlib.util.spec_from_file_location(f"experiments_{name}", EXPERIMENTS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module.main

    return load


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[Main, list[str]], str]:
    """Run an experiment that must end with status 2; give its message."""

    def run(main: Main, arguments: list[str]) -> str:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.fixture
def torchrun() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run an experiment in two processes on the CPU, and see that it ends well, or as it must."""

    def run(name: str, arguments: list[str], status: int = 0) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        result = subprocess.run(
            [*launcher, str(EXPERIMENTS / f"{name}.py"), "--accelerator", "cpu", *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,  # it takes seconds, but the machine may have other work
        )
        assert result.returncode == status, result.stderr
        return result

    return run
