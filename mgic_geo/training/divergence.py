"""Trainings that diverge: told as such, before a checkpoint without worth replaces the last good one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
from torch import Tensor, nn

from mgic_geo.training.errors import UsageError


def diverged(trainer: L.Trainer) -> UsageError:
    """Return the error that says so, with the remedy."""
    epoch, lr = trainer.current_epoch + 1, trainer.optimizers[0].defaults["lr"]
    return UsageError(f"training diverged in epoch {epoch}: lower --lr, which is {lr:g}")


def refuse_divergence(model: nn.Module, loss: Tensor, trainer: L.Trainer) -> None:
    """Raise :class:`UsageError` if an epoch's mean loss, or a weight at its end, is not finite.

    Image networks train on through NaN without an error. All ranks have the same mean and the same weights,
    so all of them raise.
    """
    if not (loss.isfinite().all() and all(p.isfinite().all() for p in model.parameters())):
        raise diverged(trainer)


def has_diverged(model: nn.Module) -> bool:
    """Tell whether weights are not finite, or so large that no training that went well ends with them."""
    weights = [p.detach() for p in model.parameters()]
    return not all(bool(w.isfinite().all()) and float(w.abs().max()) < 1e3 for w in weights)


@contextmanager
def naming_divergence(model: nn.Module, trainer: L.Trainer) -> Iterator[None]:
    """Turn an error inside into a :class:`UsageError` where the weights show that training diverged.

    Looked at only after an error, since looking at every step would make a GPU wait.
    """
    try:
        yield
    except (ValueError, RuntimeError, IndexError) as error:
        if not has_diverged(model):
            raise
        raise diverged(trainer) from error
