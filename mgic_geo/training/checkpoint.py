"""Checkpoints that survive a kill at any moment, and a run that continues from them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mgic_geo.files import replacing
from mgic_geo.training.errors import UsageError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target and renames it.

    Lightning's own writes to the system's temporary folder and moves the file from there; where that folder
    is on another disk the move is a copy, and a kill during the copy leaves half a checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save ``checkpoint`` to ``path``.

        Raises:
            UsageError: If it cannot be written. Of a full disk torch's own error says but "enforce fail".
        """
        try:
            with replacing(Path(path)) as temporary:
                torch.save(checkpoint, temporary)
        except (RuntimeError, OSError) as error:
            cause = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(
                f"cannot write {path}: {cause}; is the disk full? "
                "The last whole checkpoint is kept; free space and --resume"
            ) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load the checkpoint at ``path``.

        Raises:
            UsageError: If it cannot be read, which its writer prevents but a failing disk or a copy does not.
        """
        try:
            return super().load_checkpoint(path, map_location, weights_only)
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error}") from error
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            cause = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(f"{path} is damaged ({cause}); delete it and start anew") from error


class SaveLast(Checkpoint):
    """Saves the training state to ``path`` at the end of every epoch.

    A subclass of Lightning's ``Checkpoint`` because those run after all other callbacks, whose state for the
    finished epoch the checkpoint must hold.
    """

    def __init__(self, path: Path):
        self.path = path

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves; all ranks take part, rank 0 writes."""
        trainer.save_checkpoint(self.path)
