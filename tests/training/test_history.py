import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mgic_geo.training.checkpoint import SaveLast


def figures(folder: Path) -> tuple[list[dict[str, str]], list[int]]:
    """The rows of the CSV file, and the steps that TensorBoard shows."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    events = EventAccumulator(str(folder / "tensorboard")).Reload().Scalars("train_loss")
    return rows, [event.step for event in events]


def test_both_logs_hold_each_epoch_once_after_a_kill(
    fit: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = SaveLast.on_train_epoch_end

    def killed(self: SaveLast, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch == 2:
            raise RuntimeError("killed between the logs and the checkpoint")
        save(self, trainer, module)

    monkeypatch.setattr(SaveLast, "on_train_epoch_end", killed)
    with pytest.raises(RuntimeError, match="killed"):
        fit()
    monkeypatch.undo()
    assert len(figures(tmp_path)[0]) == 3
    # TensorBoard reads its files by name: by the second, then by a count of which "10" comes before "9".
    time.sleep(1.01)
    fit(resume=True)
    rows, steps = figures(tmp_path)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert steps == [1, 2, 3, 4]


def test_columns(fit: Callable[..., Any], tmp_path: Path) -> None:
    _, _, history = fit()
    rows, _ = figures(tmp_path)
    assert list(rows[0]) == ["epoch", "train_loss", "train_accuracy", "lr", "seconds"]
    assert [float(row["train_loss"]) for row in rows] == [row["train_loss"] for row in history.rows]
    assert all(float(row["seconds"]) > 0 for row in rows)
