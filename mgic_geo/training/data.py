"""Point clouds and images for Lightning: each rank's loaders, on its device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import lightning as L

from mgic_geo.datasets import Augment, CloudLoader, FileLoader, ImageLoader, PointClouds
from mgic_geo.datasets.epochs import Epochs
from mgic_geo.training.config import UsageError, blaming

LoaderT = TypeVar("LoaderT", bound=Epochs)
# Called with device, rank and world_size.
MakeLoader = Callable[..., ImageLoader | FileLoader]


class CloudData(L.LightningDataModule):
    """
    Gives the trainer loaders for this rank's share of the clouds.

    Args:
        train: training clouds.
        val: validation clouds, or None if the trainer does not validate.
        batch_size: clouds per step, on each device.
        points: points per cloud.
        augment: random changes to training clouds.
        seed: decides order, drawn points and augmentation, with the epoch and the rank.
    """

    def __init__(
        self,
        train: PointClouds,
        val: PointClouds | None,
        batch_size: int,
        points: int = 1024,
        augment: Augment | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.train, self.val, self.augment = train, val, augment
        self.batch_size, self.points, self.seed = batch_size, points, seed

    def train_dataloader(self) -> CloudLoader:
        """Return the shuffled, augmented batches; an incomplete last one is dropped."""
        return self._loader(self.train, train=True, augment=self.augment, seed=self.seed)

    def val_dataloader(self) -> CloudLoader:
        """Return the validation batches. The trainer asks for them only if there are any."""
        assert self.val is not None
        return self._loader(self.val)

    def _loader(self, clouds: PointClouds, **kwargs: Any) -> CloudLoader:
        return _for_this_rank(
            self.trainer, partial(CloudLoader, clouds, self.batch_size, points=self.points, **kwargs)
        )


class ImageData(L.LightningDataModule):
    """
    Gives the trainer image loaders for this rank.

    Args:
        train: makes the training loader: a ``partial`` of ``ImageLoader`` or ``FileLoader`` that lacks
            ``device``, ``rank`` and ``world_size``.
        val: likewise for validation, or None if the trainer does not validate.
    """

    def __init__(self, train: MakeLoader, val: MakeLoader | None = None):
        super().__init__()
        self.train, self.val = train, val

    def train_dataloader(self) -> ImageLoader | FileLoader:
        """Return the training loader."""
        return _for_this_rank(self.trainer, self.train)

    def val_dataloader(self) -> ImageLoader | FileLoader:
        """Return the validation loader. The trainer asks for it only if there is one."""
        assert self.val is not None
        return _for_this_rank(self.trainer, self.val)


def _for_this_rank(trainer: L.Trainer | None, make: Callable[..., LoaderT]) -> LoaderT:
    assert trainer is not None
    world_size = trainer.world_size
    with blaming("cannot cut batches"):
        loader = make(device=trainer.strategy.root_device, rank=trainer.global_rank, world_size=world_size)
    # Lightning refuses a loader without batches. Asked of the whole split, so that all ranks refuse it alike.
    if loader.samples < world_size:
        raise UsageError(
            f"{loader.samples} sample(s) cannot be shared by {world_size} processes; raise --val-fraction, "
            "or train with fewer processes"
        )
    return loader
