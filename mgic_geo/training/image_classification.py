"""The run of an experiment on labelled images, from the settings to the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from mgic_geo.datasets import split_validation
from mgic_geo.datasets.splits import Divisible
from mgic_geo.model_file import ImageCard, load_model
from mgic_geo.training.config import blaming
from mgic_geo.training.data import MakeLoader
from mgic_geo.training.evaluate import Evaluation
from mgic_geo.training.image_config import ImageConfig
from mgic_geo.training.image_plots import plot_images
from mgic_geo.training.image_training import train_images
from mgic_geo.training.module import Classifier
from mgic_geo.training.outcome import Judgement, conclude, conclude_evaluation, judge
from mgic_geo.training.report import Summary
from mgic_geo.training.run import Fitted, claim, evaluation_device, load_for


class LabelledImages(Divisible, Protocol):
    """A split of labelled images, in memory (``Images``) or on disk (``ImageFiles``)."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Return the name of image ``index``."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the labels."""
        ...


ConfigT = TypeVar("ConfigT", bound=ImageConfig)
ImagesT = TypeVar("ImagesT", bound=LabelledImages)


@dataclass(frozen=True, kw_only=True)
class ImageTask(Generic[ConfigT, ImagesT]):
    """
    What a script says of its images; all else is the same in every run.

    Args:
        load: ``load(config)`` returns the training and the test images; with ``--eval`` the test images
            suffice. Its errors are those of ``--data``.
        card: ``card(config, images)`` describes the model to train on these images.
        loader: ``loader(config, images, card, train)`` makes a loader of the images, of which ``device``,
            ``rank`` and ``world_size`` are still to be given; shuffled and augmented where ``train``.
        picture: ``picture(images, card, index)`` returns what a model sees of one image, (3, H, W) uint8.
    """

    load: Callable[[ConfigT], Sequence[ImagesT]]
    card: Callable[[ConfigT, ImagesT], ImageCard]
    loader: Callable[[ConfigT, ImagesT, ImageCard, bool], MakeLoader]
    picture: Callable[[ImagesT, ImageCard, int], Tensor]


def run_classification(config: ConfigT, task: ImageTask[ConfigT, ImagesT]) -> None:
    """
    Train a classifier and say how good it is; with ``--eval`` say only how good a saved one is.

    Raises:
        UsageError: something that the person at the command line can mend.
    """
    if config.eval is None:
        train(config, task)
    else:
        evaluate_saved(config, task, config.eval)


def train(config: ConfigT, task: ImageTask[ConfigT, ImagesT]) -> None:
    """Train, evaluate the last epoch on the test images, and write the results."""
    claim(config)
    (images, test), val = load(config, task), None
    if config.val_fraction:
        with blaming("--val-fraction"):
            images, val = split_validation(images, config.val_fraction, config.seed)
    with blaming(f"--data {config.data}"):
        card = task.card(config, images)

    fitted = train_images(
        config,
        card,
        len(images),
        lambda model: Classifier(model, config, config.seed),
        task.loader(config, images, card, True),
        task.loader(config, val, card, False) if val is not None else None,
    )
    if fitted is not None:
        conclude(config, fitted, judge_saved(config, task, config.output, test, fitted))


def evaluate_saved(config: ConfigT, task: ImageTask[ConfigT, ImagesT], path: Path) -> None:
    """Evaluate the saved model at ``path`` on the test images."""
    with blaming("--eval"):
        load_model(path, ImageCard)  # before the images, which may have to be downloaded, or all be read
    test = load(config, task)[-1]
    fitted = Fitted((), evaluation_device(config))
    conclude_evaluation(judge_saved(config, task, path, test, fitted))


def load(config: ConfigT, task: ImageTask[ConfigT, ImagesT]) -> Sequence[ImagesT]:
    """Return what the task loads, if it can be told apart."""
    with blaming(f"--data {config.data}"):
        splits = task.load(config)
        if len(splits[0].classes) < 2:
            raise ValueError("it has one class only; a classifier needs two or more")
    return splits


def judge_saved(
    config: ConfigT, task: ImageTask[ConfigT, ImagesT], path: Path, images: ImagesT, fitted: Fitted
) -> Judgement[Evaluation, Summary]:
    """Evaluate the saved model at ``path``; its pictures are its confusions and hardest images."""
    model, card = load_for(path, ImageCard, images.classes, config.data)
    return judge(
        path,
        model,
        card,
        data=config.data,
        example=torch.zeros(1, 3, *card.size),
        batches=task.loader(config, images, card, False)(device=fitted.device),
        gallery=lambda file, result: plot_images(
            file, lambda index: task.picture(images, card, index), images.name, result
        ),
        fitted=fitted,
    )
