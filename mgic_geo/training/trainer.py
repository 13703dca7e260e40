"""Lightning's trainer, set up the same way for every experiment."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import threading
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from mgic_geo.training.checkpoint import AtomicCheckpointIO, SaveLast
from mgic_geo.training.config import RunConfig


def make_trainer(config: RunConfig, checkpoint: Path, callbacks: list[Callback], validate: bool) -> L.Trainer:
    """Return the trainer for ``config``.

    It saves its state to ``checkpoint`` after every epoch, and runs the validation loop if ``validate``.
    The optimiser steps once in ``config.accumulate`` batches, and at the end of each epoch; :class:`Learner`
    sees to it that the batches of that step, which may be fewer, count in full.
    """
    # Lightning's notes (accelerators it sees, tips for other products) are no news of the run; warnings stay.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # lightning 2.6 still uses what torch 2.15 deprecates; nothing a reader of the terminal could mend.
    warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
    world, local = (int(os.environ.get(name, config.devices)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return L.Trainer(
        max_epochs=config.epochs,
        accelerator=config.accelerator,
        devices=local,
        num_nodes=max(1, world // local),
        strategy=_ddp() if world > 1 else "auto",
        precision=config.precision,
        deterministic="warn" if config.deterministic else None,
        accumulate_grad_batches=config.accumulate,
        callbacks=[*callbacks, SaveLast(checkpoint), *([EndBySigterm()] if world > 1 else [])],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=checkpoint.parent,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=1.0 if validate else 0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


class EndBySigterm(Callback):
    """Lets SIGTERM end each of several processes at once: checkpoints are whole at any moment.

    Lightning's handler would tell the other ranks by a broadcast, in the midst of whatever they exchange, and
    all of them wait for ever.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace the handler, which is registered by now; Lightning puts the first one back in the end."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _ddp() -> DDPStrategy:
    # Batch norm's running averages need no broadcast at every step: rank 0's are saved, and Learner gives
    # them to all ranks ahead of validation, whose shards may differ by a batch, so that it would wait for
    # ever in one. torch renamed the switch.
    known = inspect.signature(DistributedDataParallel).parameters
    switch = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {switch: False}
    return DDPStrategy(**options)
