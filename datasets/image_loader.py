"""Batches of images, cut from tensors in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from ..normalization import Normalization
from .epochs import Epochs, Purpose, place, to_device
from .images import Images
from .masks import SegmentedImages


class BatchAugment(Protocol):
    """Changes a training batch: :class:`ImageAugment` or :class:`SegmentationAugment`."""

    def __call__(
        self, images: Tensor, targets: Tensor, generator: torch.Generator, fill: tuple[float, float, float]
    ) -> tuple[Tensor, Tensor]:
        """The changed (images, targets); what is painted over takes the colour ``fill``."""
        ...


class ImageLoader(Epochs):
    """Iterates over batches ``(images (B, 3, H, W) float32, targets int64)`` on a device.

    Targets are labels (B,), or masks (B, H, W). Epochs and ranks are those of :class:`Epochs`: everything
    random depends on the seed, the epoch and the rank only, and not on the device.

    Args:
        images: The split to iterate over: :class:`Images` or :class:`SegmentedImages`.
        batch_size: Images in a batch, on each rank.
        normalization: Applied to every batch, after augmentation; ``Normalization.of(train.images)``.
        train: Shuffle, and drop the incomplete last batch.
        augment: Random changes to the training batches; None for none.
        channels_last: Let the batches lie in memory pixel by pixel.
        device: Where the batches lie. The images are kept there too, in uint8, unless they would take more
            than half of a GPU's free memory: then they stay in pinned host memory.
        seed: The seed of everything random.
        rank: This process, in 0 … world_size − 1.
        world_size: Processes that share the images.

    Raises:
        ValueError: If a value is out of range, or there are too few images for one training batch.
    """

    def __init__(
        self,
        images: Images | SegmentedImages,
        batch_size: int,
        *,
        normalization: Normalization,
        train: bool = False,
        augment: BatchAugment | None = None,
        channels_last: bool = False,
        device: torch.device | str = "cpu",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if augment is not None and not train:
            raise ValueError("augment changes training batches only; pass train=True, or leave it out")
        super().__init__(
            len(images),
            batch_size,
            "images",
            train=train,
            device=device,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        self.normalization, self.augment = normalization, augment
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._images = place(images.images, self.device)
        self._targets = place(images.labels if isinstance(images, Images) else images.masks, self.device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        draws, augment = self._draws(Purpose.AUGMENTATION), self.augment
        for chosen in self._order().split(self.batch_size):
            images, targets = (self._take(part, chosen) for part in (self._images, self._targets))
            if augment is not None:
                images, targets = augment(images, targets, draws, self.normalization.mean)
            images = self.normalization(images).contiguous(memory_format=self.memory_format)
            yield images, targets.long()

    def _take(self, samples: Tensor, chosen: Tensor) -> Tensor:
        if samples.device.type != self.device.type:  # too many to be kept there; "cuda" is no "cuda:0"
            return to_device(samples[chosen], self.device)
        return samples[to_device(chosen, self.device)]
