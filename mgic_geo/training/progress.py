"""What a person sees while a model trains: a line per epoch and, at a terminal, one bar for the whole run."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from tqdm import tqdm

from mgic_geo.text_table import percent
from mgic_geo.training.learner import Learner

BAR = "{desc} |{bar}| {percentage:3.0f} %  {remaining} left"


class Progress(Checkpoint):
    """Shows loss, the measure of the :class:`Learner` that trains, and the time left for the whole run.

    One line per epoch, and a bar below where standard error is a terminal; nothing on ranks above 0. A
    subclass of Lightning's ``Checkpoint`` because those run after the module has logged its epoch.
    """

    def __init__(self, seconds_between: float = 0.5):
        self.seconds_between = seconds_between  # reading a figure makes a GPU wait, so not at every step
        self.bar: tqdm[Any] | None = None
        self.started = self.shown = 0.0
        self.first_epoch = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar, where the run stands."""
        self.started, self.first_epoch = time.perf_counter(), trainer.current_epoch
        if trainer.is_global_zero and sys.stderr.isatty():
            done, batches = trainer.current_epoch, int(trainer.num_training_batches)
            total = batches * (trainer.max_epochs or 0)
            self.bar = tqdm(total=total, initial=batches * done, bar_format=BAR, dynamic_ncols=True)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's running means."""
        self.loss, self.samples = torch.zeros((), device=pl_module.device), 0
        self.counts = torch.zeros((), dtype=torch.int64, device=pl_module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar on."""
        if self.bar is None:
            return
        size, learner = len(batch[1]), _learner(pl_module)
        # Lightning hands the loss over as it is added up: divided by the number of batches of a step.
        self.loss += outputs["loss"].detach() * (size * trainer.accumulate_grad_batches)
        self.counts = self.counts + outputs["counts"]
        self.samples += size
        if (now := time.perf_counter()) - self.shown > self.seconds_between:
            loss, score = float(self.loss / self.samples), learner.score(self.counts)
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self.bar.set_description_str(
                f"{epoch}  loss {loss:.3f}  {learner.measure.name} {_shown(score):>6}", refresh=False
            )
            self.shown = now
        self.bar.update()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the epoch's line, above the bar if there is one: validation is told nowhere else."""
        if not trainer.is_global_zero:
            return
        logged, epoch, epochs = trainer.callback_metrics, trainer.current_epoch + 1, trainer.max_epochs or 0
        measure = _learner(pl_module).measure
        line = f"epoch {epoch}/{epochs}  loss {logged['train_loss']:.3f}"
        line += f"  {measure.name} {_shown(logged[f'train_{measure.key}'])}"
        if (validated := f"val_{measure.key}") in logged:
            line += f"  validation {_shown(logged[validated])}"
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
            return
        left = (time.perf_counter() - self.started) / (epoch - self.first_epoch) * (epochs - epoch)
        print(f"{line}  {tqdm.format_interval(left)} left", file=sys.stderr, flush=True)  # noqa: T201

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal tidy; after Ctrl-C or SIGTERM, says how to go on."""
        self._close()
        if isinstance(exception, KeyboardInterrupt | SIGTERMException) and trainer.is_global_zero:
            text = (
                f"stopped in epoch {trainer.current_epoch + 1}; add --resume to the same command to continue"
            )
            print(f"\n{text}", file=sys.stderr, flush=True)  # noqa: T201

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def _shown(score: Tensor) -> str:
    return percent(float(score), "%")


def _learner(module: L.LightningModule) -> Learner[Any]:
    assert isinstance(module, Learner)
    return module
