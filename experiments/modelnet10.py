"""
Train a point-cloud classifier, and say how good it is.

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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from mgic_geo.datasets import Augment, CloudLoader, PointClouds, load_clouds, split_validation
from mgic_geo.training import (
    Classifier,
    CloudData,
    Evaluation,
    Fitted,
    Judgement,
    ModelCard,
    OptimizerConfig,
    RunConfig,
    Summary,
    UsageError,
    blaming,
    build,
    claim,
    command_line,
    conclude,
    conclude_evaluation,
    evaluation_device,
    fit,
    judge,
    load_for,
    load_model,
    plain_errors,
    plot_gallery,
    save_model,
)


@dataclass(kw_only=True)
class Config(OptimizerConfig, RunConfig):
    """Flags of this experiment."""

    data: str = "shapes"
    """shapes (made on the spot), modelnet10 or modelnet40 (downloaded), or a path: an .h5 file of clouds, or
    a folder or .zip of meshes laid out as NAME/CLASS/train/*.off and NAME/CLASS/test/*.off. Clouds sampled
    from meshes are kept in ./data, or where the environment variable MGIC_DATA says."""
    output: Path = Path("runs/modelnet10")
    """Folder for everything the run writes."""
    eval: Path | None = None
    """Train nothing: evaluate this saved model (a run's folder, its model.safetensors, or a name of
    mgic_geo.list_pretrained()) on the test clouds of --data, print the table and draw confusion.png and
    gallery.png anew beside it; for a name, in the current folder."""

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
    val_fraction: float = 0.0
    """Share of the training clouds kept aside to draw a validation curve."""
    skip_corrupt: bool = False
    """Leave meshes out that cannot be read, instead of stopping and naming them."""
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

    def check(self) -> None:
        """Raise :class:`UsageError` with all that is wrong, before any work is done."""
        if self.eval is not None:  # the model says how it was trained
            if self.resume:
                raise UsageError(
                    "--eval trains nothing, so there is nothing to --resume; give one of the two"
                )
            return
        found = RunConfig.problems(self) + OptimizerConfig.problems(self)
        for name in ("group_size", "coarse_size", "k", "points"):
            if getattr(self, name) < 1:
                found.append(f"--{name.replace('_', '-')} is {getattr(self, name)}; give 1 or more")
        for name, low in (("scale", 1), ("shift", 0), ("jitter", 0)):
            if not low <= getattr(self, name) < math.inf:
                found.append(f"--{name} is {getattr(self, name)}; give {low} (off) or more")
        for name in ("dropout", "point_dropout", "val_fraction"):
            if not 0 <= getattr(self, name) < 1:
                found.append(f"--{name.replace('_', '-')} is {getattr(self, name)}; give 0 or more, under 1")
        if self.model == "dgcnn" and (self.group_size, self.coarse_size) != (16, 32):
            found.append("--group-size and --coarse-size belong to mgic_dgcnn; leave them out for dgcnn")
        if self.k > self.points:
            found.append(f"--k is {self.k}, but a cloud has --points {self.points}; give k at most that")
        if found:
            raise UsageError("\n       ".join(found))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment with the arguments ``argv``, or those of the command line."""
    config = command_line(Config, argv, __doc__)
    with plain_errors():
        config.check()
        if config.eval is not None:
            evaluate_saved(config, config.eval)
        else:
            train(config)


def load(config: Config, points: int) -> tuple[PointClouds, PointClouds]:
    """Return the training and test clouds, each of ``points`` points or more."""
    with blaming(f"--data {config.data}"):
        splits = load_clouds(config.data, skip_corrupt=config.skip_corrupt)
        pool = min(split.points.shape[1] for split in splits)
        if points > pool:
            raise ValueError(f"its clouds hold {pool} points, but the model takes {points}; lower --points")
        if len(splits[0].classes) < 2:
            raise ValueError("it has one class only; a classifier needs two or more")
    return splits


def train(config: Config) -> None:
    """Train, evaluate the last epoch on the test clouds, and write the results."""
    claim(config)
    (train_clouds, test_clouds), val_clouds = load(config, config.points), None
    if config.val_fraction:
        with blaming("--val-fraction"):
            train_clouds, val_clouds = split_validation(train_clouds, config.val_fraction, config.seed)

    card = ModelCard(config.model, config.model_kwargs(), train_clouds.classes, config.points)
    model = build(config, card, len(train_clouds), "clouds")
    fitted = fit(
        config,
        Classifier(model, config, config.seed),
        CloudData(train_clouds, val_clouds, config.batch_size, config.points, config.augment(), config.seed),
        validate=val_clouds is not None,
    )
    if fitted is None:
        return
    save_model(config.output / "model.safetensors", model, card)
    conclude(config, fitted, judge_saved(config, config.output, test_clouds, fitted))


def evaluate_saved(config: Config, path: Path) -> None:
    """Evaluate the saved model at ``path`` on the test clouds."""
    with blaming("--eval"):
        points = load_model(path, ModelCard)[1].points  # before the data, which may have to be downloaded
    test_clouds, fitted = load(config, points)[1], Fitted((), evaluation_device(config))
    conclude_evaluation(judge_saved(config, path, test_clouds, fitted))


def judge_saved(
    config: Config, path: Path, clouds: PointClouds, fitted: Fitted
) -> Judgement[Evaluation, Summary]:
    """Evaluate the saved model at ``path``; its pictures are its confusions and hardest clouds."""
    model, card = load_for(path, ModelCard, clouds.classes, config.data)
    return judge(
        path,
        model,
        card,
        data=config.data,
        example=torch.zeros(1, card.points, 3),
        batches=CloudLoader(clouds, 32, points=card.points, device=fitted.device),
        gallery=lambda file, result: plot_gallery(file, clouds.points, clouds.names, result),
        fitted=fitted,
    )


if __name__ == "__main__":
    main()
