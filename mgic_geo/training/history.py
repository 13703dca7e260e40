"""One row of figures per epoch, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from torch.utils.tensorboard import SummaryWriter

from mgic_geo.files import replacing


class History(Checkpoint):
    """Collects what each epoch logged in ``rows``, and writes ``metrics.csv`` and TensorBoard's event files.

    A row has the epoch, all ``train_…`` and then all ``val_…`` figures the module logged, the learning rate
    and ``seconds``, the training part of the epoch; shares are fractions. The rows travel in the checkpoint
    and the CSV is rewritten from them, so an epoch that was cut off and repeated appears once. A subclass of
    Lightning's ``Checkpoint`` because those run after the module has logged its epoch.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self._writer: SummaryWriter | None = None
        self._started = self._seconds = self._lr = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open TensorBoard's file, hiding what a killed run wrote there after its last checkpoint."""
        if trainer.is_global_zero:
            self._writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=len(self.rows) + 1)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Read the rate that the batch is trained with; after it the schedule has moved on."""
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the clock, so that validation after the last batch is not counted."""
        self._seconds = time.perf_counter() - self._started

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch's row and write it."""
        row = {"epoch": float(trainer.current_epoch + 1)}
        for split in ("train_", "val_"):
            logged = trainer.callback_metrics.items()
            row |= {name: float(value) for name, value in logged if name.startswith(split)}
        row |= {"lr": self._lr, "seconds": self._seconds}
        self.rows.append(row)
        if self._writer is not None:
            with replacing(self.folder / "metrics.csv") as temporary, temporary.open("w", newline="") as file:
                table = csv.DictWriter(file, fieldnames=list(row))
                table.writeheader()
                table.writerows({**r, "epoch": int(r["epoch"])} for r in self.rows)
            for name in row.keys() - {"epoch"}:
                self._writer.add_scalar(name, row[name], int(row["epoch"]))
            self._writer.flush()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        """Return the rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows back from a checkpoint."""
        self.rows = list(state_dict["rows"])
