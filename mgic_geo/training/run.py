"""The parts of a run that every experiment has, in their order: claim, build, fit, load what was saved."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from mgic_geo.memory import keep_memory
from mgic_geo.model_file import Card, load_model
from mgic_geo.training.claims import claim_output
from mgic_geo.training.config import RunConfig
from mgic_geo.training.data_record import claim_data
from mgic_geo.training.divergence import naming_divergence
from mgic_geo.training.ema import EMA
from mgic_geo.training.errors import UsageError, blaming, global_rank
from mgic_geo.training.history import History
from mgic_geo.training.progress import Progress
from mgic_geo.training.trainer import make_trainer

CardT = TypeVar("CardT", bound=Card)


@dataclass(frozen=True)
class Fitted:
    """What remains of a training: the rows of ``History``, and the device that was trained on."""

    rows: Sequence[dict[str, float]]
    device: torch.device


def claim(config: RunConfig) -> None:
    """Claim the output folder, on rank 0; see :func:`claim_output`."""
    if global_rank() == 0:
        claim_output(config, _checkpoint(config))


def build(config: RunConfig, card: Card, samples: int, what: str) -> nn.Module:
    """Build the model from the run's seed, as the flags ask; say so, and claim the data for the run.

    Args:
        config: The run's settings.
        card: The model.
        samples: Number of training samples.
        what: Their name in the plural.

    Raises:
        UsageError: If the run is resumed with other data; see :func:`claim_data`.
    """
    if global_rank() == 0:
        claim_data(config, _checkpoint(config), card.classes, samples)
    torch.manual_seed(config.seed)
    model = card.build()
    if config.compile:
        model.compile()  # in place, so the names of the weights stay as they are
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if global_rank() == 0:
        print(f"{card.model} on {config.data}, {samples:,} training {what}", flush=True)  # noqa: T201
    return model


def fit(
    config: RunConfig,
    module: L.LightningModule,
    data: L.LightningDataModule,
    *,
    validate: bool,
) -> Fitted | None:
    """Train ``module``, from its last checkpoint if the run is resumed, with logs, bar and checkpoints.

    Args:
        config: The run's settings.
        module: Has the model as ``model``, which is trained in place; with ``config.ema`` it ends with the
            moving average of its weights.
        data: The loaders.
        validate: Whether ``data`` has validation batches.

    Returns:
        The outcome on rank 0; None on all others, which have nothing left to do.

    Raises:
        SystemExit: If the process was told to stop, by Ctrl-C or SIGTERM.
    """
    keep_memory()
    checkpoint, history = _checkpoint(config), History(config.output)
    average = EMA(config.ema) if config.ema else None
    callbacks: list[Callback] = [history, Progress(), *([average] if average else [])]
    trainer = make_trainer(config, checkpoint, callbacks, validate)
    resumed = checkpoint if config.resume and checkpoint.exists() else None
    try:
        with naming_divergence(module, trainer):
            trainer.fit(module, data, ckpt_path=resumed, weights_only=True)
    except SIGTERMException as error:
        raise SystemExit(128 + signal.SIGTERM) from error  # Lightning's own would end with status 0
    if not trainer.is_global_zero:
        return None
    if average is not None:
        model = module.model
        assert isinstance(model, nn.Module)
        average.put_into(model)
    return Fitted(history.rows, trainer.strategy.root_device)


def evaluation_device(config: RunConfig) -> torch.device:
    """Return the device to evaluate a saved model on."""
    return torch.device("cuda" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def load_for(path: Path, kind: type[CardT], classes: Sequence[str], data: Any) -> tuple[nn.Module, CardT]:
    """Rebuild the model saved at ``path`` to judge it on ``data``.

    Raises:
        UsageError: If there is no such model, or its classes are not ``classes``.
    """
    with blaming(f"model {path}"):
        model, card = load_model(path, kind)
    if card.classes != tuple(classes):
        raise UsageError(
            f"the model knows the classes {_told(card.classes, classes)}, but --data {data} has "
            f"{_told(classes, card.classes)}; give the --data it was trained on"
        )
    return model, card


def _told(classes: Sequence[str], others: Sequence[str], most: int = 10) -> str:
    """Return names of ``classes``, those that are not among ``others`` first."""
    names = sorted(classes, key=set(others).__contains__)
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")


def _checkpoint(config: RunConfig) -> Path:
    return config.output / "last.ckpt"
