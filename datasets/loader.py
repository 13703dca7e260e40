"""Batches of clouds, cut from tensors in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .augment import Augment
from .clouds import PointClouds


class CloudLoader:
    """Iterates over batches ``(points (B, N, 3) float32, labels (B,) int64)`` on a device.

    Everything random in an epoch (the order, the points drawn, the augmentation) depends on the seed, the
    epoch and the rank only, so a resumed run repeats the uninterrupted one. As with PyTorch's
    ``DistributedSampler``, call :meth:`set_epoch` before each epoch; without it, an epoch repeats.

    **Drawing points.** A training cloud takes the points ``offset + i * stride`` (modulo the pool's size P)
    for i = 0 … N − 1, with a random offset and a random stride that has no factor in common with P; both are
    drawn anew for each cloud and epoch. No point is taken twice, and every point of the pool is taken with
    probability exactly N / P. A random permutation would also make all *pairs* equally likely, but needs a
    sort; the points of a pool sampled from a mesh are independent of one another, so that any choice made
    without looking at them is again a uniform sample of the surface.

    **Ranks.** In training, all ranks shuffle alike and take disjoint shards of equal length; what does not
    fill a last batch waits for another epoch. In evaluation, rank r takes clouds r, r + world_size, …: each
    cloud once over all ranks, so shards may differ by one cloud and results must be summed, not averaged.

    Args:
        clouds: the split to iterate over.
        batch_size: clouds in a batch, on each rank.
        points: N, points of each cloud, at most its pool; evaluation takes the first N.
        train: shuffle, redraw points each epoch, and drop the incomplete last batch.
        augment: random changes to the training batches; None for none.
        device: where the batches lie. The clouds are kept there too, unless they would take more than half
            of a GPU's free memory: then they stay in pinned host memory.
        seed: the seed of everything random.
        rank: this process, in 0 … world_size − 1.
        world_size: processes that share the clouds.

    Raises:
        ValueError: a value is out of range, or there are too few clouds for one training batch.
    """

    def __init__(
        self,
        clouds: PointClouds,
        batch_size: int,
        *,
        points: int = 1024,
        train: bool = False,
        augment: Augment | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        pool = clouds.points.shape[1]
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more; got {batch_size}")
        if not 1 <= points <= pool:
            raise ValueError(f"points must lie in 1 … {pool}, the points stored for each cloud; got {points}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more; got {seed}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie in 0 … world_size - 1 = {world_size - 1}; got {rank}")
        if augment is not None and not train:
            raise ValueError("augment changes training batches only; pass train=True, or leave it out")
        if train and len(clouds) < batch_size * world_size:
            raise ValueError(
                f"{len(clouds)} clouds do not fill one training batch of {batch_size} on each of "
                f"{world_size} rank(s); choose a smaller batch_size"
            )
        self.batch_size, self.num_points, self.train, self.augment = batch_size, points, train, augment
        self.device, self.seed, self.rank, self.world_size = torch.device(device), seed, rank, world_size
        self.epoch = 0
        self._size = len(clouds)
        self._points, self._labels = _place(clouds.points.float(), self.device), clouds.labels.to(self.device)
        self._strides = torch.tensor([s for s in range(1, pool + 1) if math.gcd(s, pool) == 1])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (0 or more) that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of batches an epoch gives on this rank."""
        if self.train:
            return self._size // self.world_size // self.batch_size
        return math.ceil(len(range(self.rank, self._size, self.world_size)) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._train_batches() if self.train else self._test_batches()

    def _test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in torch.arange(self.rank, self._size, self.world_size).split(self.batch_size):
            points = self._points[chosen.to(self._points.device), : self.num_points]
            yield points.to(self.device, non_blocking=True), self._labels[chosen.to(self.device)]

    def _train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        where, pool = self._points.device, self._points.shape[1]
        order = torch.randperm(self._size, generator=_generator(self.seed, self.epoch))
        order = order[self.rank : self._size // self.world_size * self.world_size : self.world_size]
        order = order[: len(self) * self.batch_size]
        # Drawn on the host for the whole epoch at once: no batch waits for a small copy.
        draws = _generator(self.seed, self.epoch, self.rank)
        offsets = torch.randint(pool, order.shape, generator=draws).to(where)
        strides = self._strides[torch.randint(len(self._strides), order.shape, generator=draws)].to(where)
        changes = _generator(self.seed, self.epoch, self.rank, device=self.device)
        steps = torch.arange(self.num_points, device=where)
        batches = order.to(where).view(-1, self.batch_size)
        batch_labels = self._labels[order.to(self.device)].view(-1, self.batch_size)
        for number, (chosen, labels) in enumerate(zip(batches, batch_labels, strict=True)):
            if self.num_points == pool:
                points = self._points[chosen]
            else:
                here = slice(number * self.batch_size, (number + 1) * self.batch_size)
                drawn = (offsets[here, None] + strides[here, None] * steps) % pool
                points = self._points[chosen[:, None], drawn]
            points = points.to(self.device, non_blocking=True)
            yield points if self.augment is None else self.augment(points, changes), labels


def _generator(*entropy: int, device: torch.device | str = "cpu") -> torch.Generator:
    seed = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return torch.Generator(device).manual_seed(seed)


def _place(points: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return points.to(device)
    free, _ = torch.cuda.mem_get_info(device)
    fits = points.numel() * points.element_size() <= free / 2
    return points.to(device) if fits else points.pin_memory()
