"""Batches of clouds, cut from tensors in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .cloud_augment import Augment
from .clouds import PointClouds
from .epochs import Epochs, Purpose, place


class CloudLoader(Epochs):
    """Iterates over batches ``(points (B, N, 3) float32, labels (B,) int64)`` on a device.

    Epochs and ranks are those of :class:`Epochs`: everything random depends on the seed, the epoch and the
    rank only.

    **Drawing points.** A training cloud takes the points ``offset + i * stride`` (modulo the pool's size P)
    for i = 0 … N − 1, with a random offset and a random stride that has no factor in common with P; both are
    drawn anew for each cloud and epoch. No point is taken twice, and every point of the pool is taken with
    probability exactly N / P. A random permutation would also make all *pairs* equally likely, but needs a
    sort; the points of a pool sampled from a mesh are independent of one another, so that any choice made
    without looking at them is again a uniform sample of the surface.

    Args:
        clouds: The split to iterate over.
        batch_size: Clouds in a batch, on each rank.
        points: N, points of each cloud, at most its pool; evaluation takes the first N.
        train: Shuffle, redraw points each epoch, and drop the incomplete last batch.
        augment: Random changes to the training batches; None for none.
        device: Where the batches lie. The clouds are kept there too, unless they would take more than half
            of a GPU's free memory: then they stay in pinned host memory.
        seed: The seed of everything random.
        rank: This process, in 0 … world_size − 1.
        world_size: Processes that share the clouds.

    Raises:
        ValueError: If a value is out of range, or there are too few clouds for one training batch.
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
        if not 1 <= points <= pool:
            raise ValueError(f"points must lie in 1 … {pool}, the points stored for each cloud; got {points}")
        if augment is not None and not train:
            raise ValueError("augment changes training batches only; pass train=True, or leave it out")
        super().__init__(
            len(clouds),
            batch_size,
            "clouds",
            train=train,
            device=device,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )
        self.num_points, self.augment = points, augment
        self._points, self._labels = place(clouds.points.float(), self.device), clouds.labels.to(self.device)
        self._strides = torch.tensor([s for s in range(1, pool + 1) if math.gcd(s, pool) == 1])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._train_batches() if self.train else self._test_batches()

    def _test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in self._order().split(self.batch_size):
            points = self._points[chosen.to(self._points.device), : self.num_points]
            yield points.to(self.device, non_blocking=True), self._labels[chosen.to(self.device)]

    def _train_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        where, pool = self._points.device, self._points.shape[1]
        order = self._order()
        # Drawn on the host for the whole epoch at once: no batch waits for a small copy.
        draws = self._draws(Purpose.POINTS)
        offsets = torch.randint(pool, order.shape, generator=draws).to(where)
        strides = self._strides[torch.randint(len(self._strides), order.shape, generator=draws)].to(where)
        changes = self._draws(Purpose.AUGMENTATION, self.device)
        steps, rows = torch.arange(self.num_points, device=where), self._points.flatten(0, 1)
        batches = order.to(where).view(-1, self.batch_size)
        batch_labels = self._labels[order.to(self.device)].view(-1, self.batch_size)
        for number, (chosen, labels) in enumerate(zip(batches, batch_labels, strict=True)):
            if self.num_points == pool:
                points = self._points[chosen]
            else:
                here = slice(number * self.batch_size, (number + 1) * self.batch_size)
                drawn = (offsets[here, None] + strides[here, None] * steps) % pool
                # Rows by one index take a fifth of the time of points by two.
                points = rows.index_select(0, (drawn + pool * chosen[:, None]).flatten())
                points = points.view(self.batch_size, self.num_points, 3)
            points = points.to(self.device, non_blocking=True)
            yield points if self.augment is None else self.augment(points, changes), labels
