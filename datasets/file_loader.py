"""Batches of images that are read from their files by worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..normalization import Normalization
from .cores import usable_cores
from .epochs import Epochs, Purpose, generator
from .image_loader import BatchAugment
from .problems import REMEDY, CorruptImageError, corrupt

# Changes one sample: (image (3, H, W) uint8, target) -> the same, changed.
Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Sample = tuple[Tensor, Tensor]


class Files(Protocol):
    """A split whose samples are read one by one."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """The name of sample ``index``, for messages."""
        ...

    def read(self, index: int) -> Sample:
        """(image (3, H, W) uint8, target) of sample ``index``; raises CorruptImageError."""
        ...


class FileLoader(Epochs):
    """Iterates over batches ``(images (B, 3, H, W) float32, targets int64)`` read from files.

    Epochs and ranks are those of :class:`Epochs`. A sample's transform draws from torch's global generator,
    seeded by the seed, the epoch and the sample's index: batches are the same with any number of workers, and
    a sample's change is the same on any rank. Iterate over one epoch at a time: its iterators share the
    workers, which stay from epoch to epoch.

    Args:
        files: The split: :class:`ImageFiles` or :class:`SegmentedFiles`.
        batch_size: Images in a batch, on each rank.
        normalization: Applied to every batch, on the device.
        transform: Changes a sample, in a worker: a torchvision v2 transform, or an augmentation wrapped in
            :class:`PerSample`. All results of a batch must have one size. None: as they are.
        train: Shuffle, and drop the incomplete last batch.
        workers: Processes that read; 0: none but this one; None: one a core, but 8 at most.
        channels_last: Let the batches lie in memory pixel by pixel.
        device: Where the batches lie.
        seed: The seed of everything random.
        rank: This process, in 0 … world_size − 1.
        world_size: Processes that share the images.

    Raises:
        ValueError: If a value is out of range, or there are too few images for one training batch.
        CorruptImageError: While iterating: images of a batch cannot be read; the message names them.
    """

    def __init__(
        self,
        files: Files,
        batch_size: int,
        *,
        normalization: Normalization,
        transform: Transform | None = None,
        train: bool = False,
        workers: int | None = None,
        channels_last: bool = False,
        device: torch.device | str = "cpu",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(
            len(files),
            batch_size,
            "images",
            train=train,
            device=device,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        self.normalization = normalization
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        workers = min(usable_cores(), 8) if workers is None else workers
        self._loader = DataLoader(
            _Samples(files, transform, seed),
            batch_sampler=_Batches(self),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
            collate_fn=_stack,
            generator=torch.Generator(),  # else each epoch would take a number from the model's randomness
        )

    def __iter__(self) -> Iterator[Sample]:
        for batch in self._loader:
            if isinstance(batch, Exception):
                raise batch
            images, targets = (part.to(self.device, non_blocking=True) for part in batch)
            yield self.normalization(images).contiguous(memory_format=self.memory_format), targets.long()


class PerSample:
    """Lets an augmentation of batches change one sample, in a :class:`FileLoader`.

    Args:
        augment: Such as :class:`SegmentationAugment`.
        normalization: The loader's; what is painted over takes its mean colour.
    """

    def __init__(self, augment: BatchAugment, normalization: Normalization) -> None:
        self.augment, self.fill = augment, normalization.mean

    def __call__(self, image: Tensor, target: Tensor) -> Sample:
        """The changed (image, target)."""
        images, targets = self.augment(image[None], target[None], torch.default_generator, self.fill)
        return images[0], targets[0]


class _Samples(Dataset[Sample | str]):
    """Samples by (epoch, index), so that workers that stay need not be told of a new epoch."""

    def __init__(self, files: Files, transform: Transform | None, seed: int) -> None:
        self.files, self.transform, self.seed = files, transform, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample | str:
        epoch, index = key
        try:
            image, target = self.files.read(index)
        except CorruptImageError as error:  # as text: others of the batch may be corrupt too
            return f"{self.files.name(index)}: {error}"
        if self.transform is None:
            return image, target
        with torch.random.fork_rng(devices=[]):
            draws = generator(Purpose.AUGMENTATION, self.seed, epoch, index)
            torch.manual_seed(draws.initial_seed())
            return self.transform(image, target)


def _stack(samples: Sequence[Sample | str]) -> Sample | Exception:
    # Errors are handed over as they are: what a worker raises arrives as a long text about the worker.
    problems = [sample for sample in samples if isinstance(sample, str)]
    if problems:
        return corrupt(problems, "the batch", REMEDY)
    images, targets = zip(*(sample for sample in samples if not isinstance(sample, str)), strict=True)
    if sizes := sorted({tuple(image.shape[1:]) for image in images})[1:]:
        return ValueError(
            f"images of one batch differ in size, such as {tuple(images[0].shape[1:])} and {sizes[-1]}; "
            "pass a transform that crops them to one size, or batch_size=1"
        )
    return torch.stack(images), torch.stack(targets)


class _Batches:
    """The (epoch, index) pairs of each batch of the loader's current epoch."""

    def __init__(self, loader: Epochs) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.loader.epoch
        for chosen in self.loader._order().split(self.loader.batch_size):
            yield [(epoch, index) for index in chosen.tolist()]
