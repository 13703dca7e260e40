"""A tiny task that a tiny model learns: three classes of clouds, each long along another axis."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor, nn

from mgic_geo.datasets import CloudLoader, PointClouds
from mgic_geo.training.classification.classifier import Classifier
from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.config import RunConfig
from mgic_geo.training.data import LoaderData
from mgic_geo.training.history import History
from mgic_geo.training.optimizers import OptimizerConfig
from mgic_geo.training.trainer import make_trainer

CLASSES = ("along x", "along y", "along z")


def clouds(size: int, seed: int = 0, points: int = 16) -> PointClouds:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 3
    axes = torch.rand(size, points, 3, generator=generator) - 0.5
    axes *= 0.1 + nn.functional.one_hot(labels, 3)[:, None]
    return PointClouds(axes, labels, tuple(f"cloud_{i}" for i in range(size)), CLASSES)


class Extent(nn.Module):
    """Logits from the extent along each axis; the dropout makes training random."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
        )

    def forward(self, points: Tensor) -> Tensor:
        return self.net(points.amax(1) - points.amin(1))


@pytest.fixture
def make_clouds() -> Callable[..., PointClouds]:
    return clouds


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., tuple[L.Trainer, Classifier, History]]:
    """Train the tiny model in ``tmp_path``, or in another folder."""

    def run(
        callbacks: tuple[Any, ...] = (),
        folder: Path = tmp_path,
        val: bool = False,
        resume: bool = False,
        optimizer: str = "adamw",
    ) -> tuple[L.Trainer, Classifier, History]:
        config = RunConfig(data="", output=folder, epochs=4, batch_size=8)
        history, checkpoint = History(folder), folder / "last.ckpt"
        trainer = make_trainer(config, checkpoint, [history, *callbacks], validate=val)
        torch.manual_seed(0)
        module = Classifier(Extent(), OptimizerConfig(optimizer=optimizer, lr=0.05))  # type: ignore[arg-type]
        data = LoaderData(
            partial(CloudLoader, clouds(26), 8, points=12, train=True),
            partial(CloudLoader, clouds(9, seed=1), 8, points=12) if val else None,
        )
        trainer.fit(module, data, ckpt_path=checkpoint if resume else None, weights_only=True)
        return trainer, module, history

    return run


@pytest.fixture
def ink() -> Callable[[Path], float]:
    """Give the share of a picture that is not white."""
    return lambda path: float((imread(path)[..., :3].min(-1) < 0.98).mean())


@pytest.fixture
def result() -> Evaluation:
    """Answers to nine samples of three classes."""
    generator = torch.Generator().manual_seed(0)
    return Evaluation(
        torch.rand(9, 3, generator=generator).softmax(1), torch.arange(9) % 3, ("chair", "sofa", "bed")
    )
