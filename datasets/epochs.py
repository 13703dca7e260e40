"""What all loaders share: which samples a rank takes in an epoch, in which order, with which randomness."""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor


class Purpose(IntEnum):
    """What random numbers are for: no two purposes share a stream.

    None of them is 0. NumPy's ``SeedSequence`` fills up with zeros, so (seed, epoch) alone would be the same
    stream as (seed, epoch, rank 0).
    """

    ORDER = 1
    POINTS = 2
    AUGMENTATION = 3


class Epochs:
    """The base of the loaders: the order of an epoch, its shards and its random numbers.

    Everything random in an epoch depends on the seed, the epoch and the rank only, so a resumed run repeats
    the uninterrupted one. As with PyTorch's ``DistributedSampler``, call :meth:`set_epoch` before each
    epoch; without it, an epoch repeats.

    **Ranks.** In training, all ranks shuffle alike and take disjoint shards of equal length; what does not
    fill a last batch waits for another epoch. In evaluation, rank r takes samples r, r + world_size, …: each
    sample once over all ranks, so shards may differ by one and results must be summed, not averaged.

    Args:
        size: Samples in the split.
        batch_size: Samples in a batch, on each rank.
        what: What the samples are called in messages, such as ``"clouds"``.
        train: Shuffle, and drop the incomplete last batch.
        device: Where the batches lie.
        seed: The seed of everything random.
        rank: This process, in 0 … world_size − 1.
        world_size: Processes that share the samples; ``samples`` is their number on all of them.

    Raises:
        ValueError: If a value is out of range, or there are too few samples for one training batch.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        what: str,
        *,
        train: bool,
        device: torch.device | str,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more; got {batch_size}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more; got {seed}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in 0 … world_size - 1 = {world_size - 1}; got {rank}")
        if train and size < batch_size * world_size:
            raise ValueError(
                f"{size} {what} do not fill one training batch of {batch_size} on each of {world_size} "
                f"rank(s); choose a smaller batch_size, {size // world_size} at most, or give more {what}"
            )
        self.batch_size, self.train, self.device = batch_size, train, torch.device(device)
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0
        self.samples = size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (0 or more) that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of batches an epoch gives on this rank."""
        if self.train:
            return self.samples // self.world_size // self.batch_size
        return math.ceil(len(range(self.rank, self.samples, self.world_size)) / self.batch_size)

    def _order(self) -> Tensor:
        """The samples this rank takes in this epoch, int64, batch after batch."""
        if not self.train:
            return torch.arange(self.rank, self.samples, self.world_size)
        order = torch.randperm(self.samples, generator=generator(Purpose.ORDER, self.seed, self.epoch))
        order = order[self.rank : self.samples // self.world_size * self.world_size : self.world_size]
        return order[: len(self) * self.batch_size]

    def _draws(self, purpose: Purpose, device: torch.device | str = "cpu") -> torch.Generator:
        """A new generator of this rank's random numbers for ``purpose`` in this epoch."""
        return generator(purpose, self.seed, self.epoch, self.rank, device=device)


def generator(purpose: Purpose, *entropy: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator that depends on the purpose and the integers ``entropy`` (0 or more), in their order."""
    state = np.random.SeedSequence([int(purpose), *entropy]).generate_state(1, np.uint64)
    seed = int(state[0] >> np.uint64(1))
    return torch.Generator(device).manual_seed(seed)


def place(samples: Tensor, device: torch.device) -> Tensor:
    """Put a split on a device, or into pinned host memory if it would fill half of a GPU's free memory."""
    if device.type != "cuda":
        return samples.to(device)
    free, _ = torch.cuda.mem_get_info(device)
    fits = samples.numel() * samples.element_size() <= free / 2
    return samples.to(device) if fits else samples.pin_memory()


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Bring values drawn on the host to a device, without waiting for what a GPU is at."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
