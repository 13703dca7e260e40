"""How well features survive the way to the coarsest level and back, by the transfers alone (section 5.1)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mgic_geo.core.hierarchy import ChannelHierarchy
from mgic_geo.core.transfer import Prolongation, Restriction


class TransferAutoencoder(nn.Module):
    r"""The way down and up of a MGIC block, :math:`P_0 … P_{n-1} R_{n-1} … R_0 x`, and nothing else of it.

    Args:
        hierarchy: Widths and groups of the levels, at least one coarsening.
        init: Start of the transfers, see :class:`mgic_geo.Restriction`.

    Shapes:
        - input: features (..., C), the finest width;
        - output: the same.

    Raises:
        ValueError: If the hierarchy has one level only: nothing would be encoded.
    """

    def __init__(self, hierarchy: ChannelHierarchy, init: str = "random") -> None:
        super().__init__()
        if hierarchy.coarsenings == 0:
            raise ValueError(
                f"{hierarchy.channels} channels are not coarsened to coarse_size={hierarchy.coarse_size}; "
                "choose a smaller coarse_size"
            )
        self.hierarchy = hierarchy
        widths, groups = hierarchy.widths, hierarchy.groups
        steps = list(zip(widths[:-1], widths[1:], groups[:-1], strict=True))
        self.restrictions = nn.ModuleList(Restriction(f, c, g, init=init) for f, c, g in steps)
        self.prolongations = nn.ModuleList(Prolongation(c, f, g, init=init) for f, c, g in steps)

    def encode(self, x: Tensor) -> Tensor:
        """Return the coarsest features (..., c_n) of ``x`` (..., C)."""
        for restrict in self.restrictions:
            x = restrict(x)
        return x

    def decode(self, code: Tensor) -> Tensor:
        """Return the features (..., C) that the coarsest ones (..., c_n) stand for."""
        for prolong in reversed(self.prolongations):
            code = prolong(code)
        return code

    def forward(self, x: Tensor) -> Tensor:
        """Encode and decode (..., C)."""
        return self.decode(self.encode(x))


class Moments(NamedTuple):
    """What the mean squared error of a linear code depends on, and nothing else does.

    Args:
        second: (C, C) float64, the mean over all pixels of x xᵀ.
        mean: (C,) float64, the mean of x.
    """

    second: Tensor
    mean: Tensor

    @classmethod
    def of(cls, batches: Iterable[Tensor]) -> Moments:
        """Return the moments, on the CPU, of all features in ``batches`` (..., C).

        Raises:
            ValueError: If features are not finite, or the same at all pixels.
        """
        second, total, count = torch.zeros(()), torch.zeros(()), 0
        for features in batches:
            rows = features.reshape(-1, features.size(-1)).double()
            second, total = second + (rows.T @ rows).cpu(), total + rows.sum(0).cpu()
            count += len(rows)
        moments = cls(second / count, total / count)
        if not moments.second.isfinite().all():
            raise ValueError("the network's features are not finite: its training diverged")
        if moments.variance <= 0:
            raise ValueError("the network's features are the same at all pixels: there is nothing to encode")
        return moments

    @property
    def variance(self) -> float:
        """The mean over channels of a channel's variance."""
        return float((self.second.diag() - self.mean.square()).mean())

    def mse(self, decoded: Tensor) -> Tensor:
        """Return the mean squared error (), over pixels and channels, of a linear code.

        Args:
            decoded: (C, C) float64; row i is what the code makes of the i-th unit vector.
        """
        # The error of x = Σ x_i e_i is Σ x_i (e_i − decoded_i), so its mean square needs E[x_i x_j] only.
        error = torch.eye(len(decoded), dtype=decoded.dtype) - decoded
        return (error * (self.second @ error)).sum() / len(decoded)


def learn_code(
    hierarchy: ChannelHierarchy, moments: Moments, *, steps: int = 3000, lr: float = 0.03, seed: int = 0
) -> tuple[TransferAutoencoder, TransferAutoencoder]:
    """Learn the transfers that reconstruct features best, by Adam with a cosine schedule.

    The loss is the mean squared error over *all* features at each step: it is computed from their moments,
    exactly, at the cost of a batch of C features.

    Args:
        hierarchy: Of C channels.
        moments: Of the features to learn from.
        steps: Of Adam.
        lr: Learning rate of the first step; the last one's is 0.
        seed: Decides the start.

    Returns:
        The autoencoder as it starts, averaging within groups, and as it is learned; in float64.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = TransferAutoencoder(hierarchy).double()
    learned = copy.deepcopy(start)
    unit = torch.eye(hierarchy.channels, dtype=torch.float64)
    power = moments.second.diag().mean()  # so that Adam's eps means the same to features of any scale
    # Averages are nearly of rank one, and each further direction begins with a plateau of tiny gradients:
    # a shorter memory of past squares crosses them several times faster than Adam's customary 0.999.
    optimizer = torch.optim.Adam(learned.parameters(), lr=lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (moments.mse(learned(unit)) / power).backward()
        optimizer.step()
        schedule.step()
    return start, learned


def best_code(hierarchy: ChannelHierarchy, moments: Moments) -> Tensor:
    """Return the best linear code that respects what the groups keep apart, in closed form.

    Fine channels that no group links, on any level, are coded apart. The best code of linked ones with r
    coarsest channels is their projection on the r leading eigenvectors of their second moments. No learned
    code does better on these features; with widths and groups that are powers of two, transfers exist that
    do as well.

    Args:
        hierarchy: Of C channels.
        moments: Of the features.

    Returns:
        (C, C) float64; row i is what the code makes of the i-th unit vector, as :meth:`Moments.mse` takes it.
    """
    unit = torch.eye(hierarchy.channels)
    reach = TransferAutoencoder(hierarchy, init="average").encode(unit).detach() > 0  # (C, c_n)
    linked = (reach.float() @ reach.float().T) > 0
    while not torch.equal(wider := (linked.float() @ linked.float()) > 0, linked):  # links of links
        linked = wider
    code = torch.zeros_like(moments.second)
    for members in linked.unique(dim=0):
        channels = members.nonzero()[:, 0]
        rank = int(reach[members].any(0).sum())
        block = moments.second[channels[:, None], channels]
        basis = torch.linalg.eigh(block).eigenvectors[:, -rank:]  # eigenvalues ascend
        code[channels[:, None], channels] = basis @ basis.T
    return code


class CodeResult(NamedTuple):
    """What came of learning a code. Errors are mean squares over pixels and channels.

    Args:
        group_size: Largest group, s_g.
        parameters: Weights of all transfers.
        mse: Of the learned code, on held-out features.
        variance: Of the held-out features, the mean over channels.
        mse_at_start: Of the averages it started from, on held-out features.
        mse_of_best_code: Of the closed form, which has seen the training features too, on held-out ones.
        training_mse: Of the learned code, on the features it learned from.
        training_mse_of_best_code: Likewise; no code of these groups is below.
    """

    group_size: int
    parameters: int
    mse: float
    variance: float
    mse_at_start: float
    mse_of_best_code: float
    training_mse: float
    training_mse_of_best_code: float

    @property
    def converged(self) -> bool:
        """Whether the learned code is within 2 % of the best one on the features it learned from."""
        # Where the best code loses (nearly) nothing, a share of the variance is what can be asked for.
        return self.training_mse <= 1.02 * self.training_mse_of_best_code + 1e-6 * self.variance


@torch.no_grad()
def judge_code(
    start: TransferAutoencoder, learned: TransferAutoencoder, training: Moments, held_out: Moments
) -> CodeResult:
    """Measure what :func:`learn_code` gave on the features it learned from, and on others."""
    best, unit = best_code(learned.hierarchy, training), torch.eye(learned.hierarchy.channels).double()
    decoded = learned(unit)
    return CodeResult(
        group_size=learned.hierarchy.group_size,
        parameters=sum(weight.numel() for weight in learned.parameters()),
        mse=float(held_out.mse(decoded)),
        variance=held_out.variance,
        mse_at_start=float(held_out.mse(start(unit))),
        mse_of_best_code=float(held_out.mse(best)),
        training_mse=float(training.mse(decoded)),
        training_mse_of_best_code=float(training.mse(best)),
    )
