"""The run of an experiment, from the settings to the table: one for all tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from mgic_geo.datasets import split_validation
from mgic_geo.datasets.splits import Divisible
from mgic_geo.model_file import Card, load_model, save_model
from mgic_geo.training.data import LoaderData, MakeLoader
from mgic_geo.training.errors import blaming, check_folder
from mgic_geo.training.learner import Learner
from mgic_geo.training.outcome import Judgement, conclude, conclude_evaluation
from mgic_geo.training.run import build, claim, evaluation_device, fit, load_for
from mgic_geo.training.training_config import TrainingConfig


class Labelled(Divisible, Protocol):
    """A split of labelled samples, in memory or on disk."""

    def __len__(self) -> int: ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the labels."""
        ...


ConfigT = TypeVar("ConfigT", bound=TrainingConfig)
SamplesT = TypeVar("SamplesT", bound=Labelled)
CardT = TypeVar("CardT", bound=Card)


class Task(ABC, Generic[ConfigT, SamplesT, CardT]):
    """What an experiment says of its data and its models; all else is the same in every run."""

    kind: type[CardT]
    samples: str
    """What the samples are called, in the plural."""

    @abstractmethod
    def load(self, config: ConfigT, saved: CardT | None) -> Sequence[SamplesT]:
        """Return the training and the test samples; where a ``saved`` model is judged the latter suffice."""

    @abstractmethod
    def card(self, config: ConfigT, samples: SamplesT) -> CardT:
        """Describe the model to train on these samples."""

    @abstractmethod
    def loader(self, config: ConfigT, samples: SamplesT, card: CardT, train: bool) -> MakeLoader:
        """Return a maker of loaders; shuffled and augmented ones where ``train``."""

    @abstractmethod
    def learner(self, config: ConfigT, card: CardT, samples: SamplesT) -> Callable[[nn.Module], Learner[Any]]:
        """Return what makes the Lightning module of a model."""

    @abstractmethod
    def judge(
        self,
        config: ConfigT,
        model: nn.Module,
        card: CardT,
        samples: SamplesT,
        device: torch.device,
        history: Sequence[dict[str, float]],
    ) -> Judgement[Any, Any]:
        """Evaluate a saved model; ``history`` has the epochs of its training, if it was now."""


def run_task(config: ConfigT, task: Task[ConfigT, SamplesT, CardT]) -> None:
    """Train a model and say how good it is; with ``--eval`` say only how good a saved one is.

    Raises:
        UsageError: If there is something that the person at the command line can mend.
    """
    if config.eval is None:
        _train(config, task)
    else:
        _evaluate_saved(config, task, config.eval)


def _train(config: ConfigT, task: Task[ConfigT, SamplesT, CardT]) -> None:
    """Train, judge the last epoch on the test samples, and write the results."""
    claim(config)
    with blaming(f"--data {config.data}"):
        samples, test = task.load(config, None)
    held_out = None
    if config.val_fraction:
        with blaming("--val-fraction"):
            samples, held_out = split_validation(samples, config.val_fraction, config.seed)
    with blaming(f"--data {config.data}"):
        card = task.card(config, samples)
        learner = task.learner(config, card, samples)

    model = build(config, card, len(samples), task.samples)
    val = None if held_out is None else task.loader(config, held_out, card, False)
    data = LoaderData(task.loader(config, samples, card, True), val)
    fitted = fit(config, learner(model), data, validate=val is not None)
    if fitted is None:
        return
    save_model(config.output / "model.safetensors", model, card)
    conclude(config, _judge(config, task, config.output, test, fitted.device, fitted.rows), fitted.rows)


def _evaluate_saved(config: ConfigT, task: Task[ConfigT, SamplesT, CardT], path: Path) -> None:
    """Judge the saved model at ``path`` on the test samples; what is written goes to the output folder."""
    check_folder("--output", config.output)
    with blaming("--eval"):
        saved = load_model(path, task.kind)[1]  # before the data, which may have to be downloaded, or read
    with blaming(f"--data {config.data}"):
        test = task.load(config, saved)[-1]
    conclude_evaluation(config, _judge(config, task, path, test, evaluation_device(config)))


def _judge(
    config: ConfigT,
    task: Task[ConfigT, SamplesT, CardT],
    path: Path,
    samples: SamplesT,
    device: torch.device,
    history: Sequence[dict[str, float]] = (),
) -> Judgement[Any, Any]:
    model, card = load_for(path, task.kind, samples.classes, config.data)
    return task.judge(config, model, card, samples, device, history)
