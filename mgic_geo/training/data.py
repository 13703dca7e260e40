"""Loaders for Lightning: each rank's own, on its device."""

from __future__ import annotations

from collections.abc import Callable

import lightning as L

from mgic_geo.datasets import CloudLoader, FileLoader, ImageLoader
from mgic_geo.training.errors import UsageError, blaming

Loader = CloudLoader | ImageLoader | FileLoader
# Called with device, rank and world_size.
MakeLoader = Callable[..., Loader]


class LoaderData(L.LightningDataModule):
    """Gives the trainer loaders for this rank.

    Args:
        train: Makes the training loader: a ``partial`` of ``CloudLoader``, ``ImageLoader`` or ``FileLoader``
            that lacks ``device``, ``rank`` and ``world_size``.
        val: Likewise for validation, or None if the trainer does not validate.
    """

    def __init__(self, train: MakeLoader, val: MakeLoader | None = None):
        super().__init__()
        self.train, self.val = train, val

    def train_dataloader(self) -> Loader:
        """Return the training loader."""
        return _for_this_rank(self.trainer, self.train)

    def val_dataloader(self) -> Loader:
        """Return the validation loader. The trainer asks for it only if there is one."""
        assert self.val is not None
        return _for_this_rank(self.trainer, self.val)


def _for_this_rank(trainer: L.Trainer | None, make: MakeLoader) -> Loader:
    assert trainer is not None
    world_size = trainer.world_size
    with blaming("--batch-size"):
        loader = make(device=trainer.strategy.root_device, rank=trainer.global_rank, world_size=world_size)
    # Lightning refuses a loader without batches. Asked of the whole split, so that all ranks refuse it alike.
    if loader.samples < world_size:
        raise UsageError(
            f"{loader.samples} sample(s) cannot be shared by {world_size} processes; raise --val-fraction, "
            "or train with fewer processes"
        )
    return loader
