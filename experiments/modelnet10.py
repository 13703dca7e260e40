"""Train a point-cloud classifier, and say how good it is.

With no arguments it trains MGIC-DGCNN on ten classes of procedural shapes that it makes itself, on whatever
device there is. For ModelNet-10 give --data modelnet10, which downloads it, or --data PATH. The output folder
gets the model, the settings, logs and figures, and pictures: learning curves, confusion matrix, and a gallery
of the hardest clouds. Test clouds are classified once, after the last epoch.

    python experiments/modelnet10.py
    python experiments/modelnet10.py --data modelnet10 --epochs 200 --optimizer sgd --output runs/sgd
    python experiments/modelnet10.py --data modelnet10 --eval runs/sgd
    torchrun --nproc-per-node 4 experiments/modelnet10.py --data modelnet10
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mgic_geo.datasets import Augment, CloudLoader, PointClouds, load_clouds
from mgic_geo.model_file import ModelCard
from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.classification.galleries import plot_gallery
from mgic_geo.training.classification.task import ClassificationTask
from mgic_geo.training.errors import plain_errors
from mgic_geo.training.task import run_task
from mgic_geo.training.training_config import TrainingConfig, parse_training


@dataclass(kw_only=True)
class Config(TrainingConfig):
    """Flags of this experiment."""

    data: str = "shapes"
    """shapes (made on the spot), modelnet10 or modelnet40 (downloaded), or a path: an .h5 file of clouds, or
    a folder or .zip of meshes laid out as NAME/CLASS/train/*.off and NAME/CLASS/test/*.off. Clouds sampled
    from meshes are kept in ./data, or where the environment variable MGIC_DATA says."""
    output: Path = Path("runs/modelnet10")
    """Folder for everything the run writes."""

    model: Literal["mgic_dgcnn", "dgcnn"] = "mgic_dgcnn"
    """mgic_dgcnn, or dgcnn: the same network with dense EdgeConv blocks."""
    group_size: int = 16
    """Channels per group on the fine levels of a MGIC block."""
    coarse_size: int = 32
    """Channels of the coarsest, fully coupled level of a MGIC block, at most."""
    k: int = 10
    """Neighbours of each point in the k-NN graphs, itself included."""
    dropout: float = 0.2
    """Share of the head's features dropped while training."""

    points: int = 1024
    """Points per cloud."""
    scale: float = 1.25
    """Augmentation: stretch each axis by its own factor in 1/scale … scale; 1 for none. DGCNN's is 1.5."""
    shift: float = 0.0
    """Augmentation: shift by up to this along each axis. DGCNN's is 0.2."""
    jitter: float = 0.0
    """Augmentation: move each point by a normal of this standard deviation, such as 0.01."""
    rotate: bool = False
    """Augmentation: turn about the up axis. Off because ModelNet's shapes stand aligned."""
    point_dropout: float = 0.0
    """Augmentation: drop up to this share of a cloud's points."""

    def model_kwargs(self) -> dict[str, Any]:
        """Return the arguments of ``create_model``."""
        kwargs: dict[str, Any] = {"k": self.k, "dropout": self.dropout}
        if self.model == "mgic_dgcnn":
            kwargs |= {"group_size": self.group_size, "coarse_size": self.coarse_size}
        return kwargs

    def augment(self) -> Augment:
        """Return the augmentation that the switches ask for."""
        return Augment(
            scale=(1 / self.scale, self.scale) if self.scale > 1 else None,
            shift=self.shift,
            jitter=self.jitter,
            rotate=self.rotate,
            dropout=self.point_dropout,
        )

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems() + self.at_least(group_size=1, coarse_size=1, k=1, points=1)
        found += self.at_least(scale=1, shift=0, jitter=0, hint=" (off)")
        found += self.shares("dropout", "point_dropout")
        if self.model == "dgcnn" and (self.group_size, self.coarse_size) != (16, 32):
            found.append("--group-size and --coarse-size belong to mgic_dgcnn; leave them out for dgcnn")
        if self.k > self.points:
            found.append(f"--k is {self.k}, but a cloud has --points {self.points}; give k at most that")
        return found


class ModelNet(ClassificationTask[Config, PointClouds, ModelCard]):
    """Point clouds, in memory."""

    kind = ModelCard
    samples = "clouds"

    def load(self, config: Config, saved: ModelCard | None) -> tuple[PointClouds, PointClouds]:
        """Return the training and test clouds, each of as many points as the model takes or more."""
        splits = load_clouds(config.data, skip_corrupt=config.skip_corrupt)
        points, remedy = config.points, "lower --points"
        if saved is not None:
            points, remedy = saved.points, f"give data with {saved.points} points or more"
        pool = min(split.points.shape[1] for split in splits)
        if points > pool:
            raise ValueError(f"its clouds hold {pool} points, but the model takes {points}; {remedy}")
        return splits

    def card(self, config: Config, samples: PointClouds) -> ModelCard:
        """Describe the model."""
        return ModelCard(config.model, config.model_kwargs(), samples.classes, config.points)

    def loader(
        self, config: Config, samples: PointClouds, card: ModelCard, train: bool
    ) -> partial[CloudLoader]:
        """Return a maker of loaders, shuffled and augmented for training."""
        return partial(
            CloudLoader,
            samples,
            config.batch_size,
            points=card.points,
            train=train,
            augment=config.augment() if train else None,
            seed=config.seed,
        )

    def gallery(self, path: Path, samples: PointClouds, card: ModelCard, result: Evaluation) -> None:
        """Draw the hardest clouds."""
        plot_gallery(path, samples.points, samples.names, result)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, judge the last epoch on the test clouds and write the results; or judge what --eval names."""
    config = parse_training(Config, argv, __doc__)
    with plain_errors():
        config.validate()
        run_task(config, ModelNet())


if __name__ == "__main__":
    main()
