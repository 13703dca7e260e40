"""The flags of loss and optimiser, and the optimisers with their schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from mgic_geo.training.config import Flags
from mgic_geo.training.schedule import Schedule, rate_factor


@dataclass(kw_only=True)
class OptimizerConfig(Flags):
    """Flags of the loss and the optimiser."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw: AdamW with a one-cycle schedule, best for few epochs. sgd: DGCNN's recipe, momentum 0.9 and a
    cosine schedule down to a hundredth of --lr, for 200 epochs or more."""
    lr: float | None = None
    """Highest learning rate. By default 0.006 for adamw, 0.1 for sgd."""
    weight_decay: float | None = None
    """By default 0.05 for adamw (norms and biases are spared), 0.0001 for sgd."""
    label_smoothing: float = 0.1
    """Share of the target spread evenly over all classes."""

    default_lr: ClassVar[dict[str, float]] = {"adamw": 6e-3, "sgd": 0.1}
    default_decay: ClassVar[dict[str, float]] = {"adamw": 0.05, "sgd": 1e-4}

    @property
    def peak_lr(self) -> float:
        """The highest learning rate, default resolved."""
        return self.lr if self.lr is not None else self.default_lr[self.optimizer]

    @property
    def decay(self) -> float:
        """The weight decay, default resolved."""
        return self.weight_decay if self.weight_decay is not None else self.default_decay[self.optimizer]

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems()
        if not self.peak_lr > 0:
            found.append(f"--lr is {self.lr}; give a positive number, or leave it out for the default")
        return found + self.at_least(weight_decay=0) + self.shares("label_smoothing")

    def optimization(self, model: nn.Module, steps: int, epochs: int) -> tuple[Optimizer, LRScheduler]:
        """Return the optimiser of ``model`` and its schedule over ``steps`` in ``epochs``."""
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                model.parameters(), lr=self.peak_lr, momentum=0.9, weight_decay=self.decay
            )
            return optimizer, CosineAnnealingLR(optimizer, T_max=steps, eta_min=self.peak_lr / 100)
        optimizer = torch.optim.AdamW(parameter_groups(model, self.decay), lr=self.peak_lr)
        # The cycle of a single step would be its end, at a rate of about 0.
        return optimizer, OneCycleLR(optimizer, max_lr=self.peak_lr, total_steps=max(2, steps))


@dataclass(kw_only=True)
class ImageOptimizerConfig(OptimizerConfig):
    """Flags of the loss, the optimiser and the schedule of image networks."""

    optimizer: Literal["adamw", "sgd"] = "sgd"
    """sgd has momentum 0.9."""
    nesterov: bool = True
    """Nesterov's momentum, for sgd."""
    lr: float | None = None
    """Highest learning rate. By default 0.1 for sgd, 0.002 for adamw; it does not follow the batch size."""
    weight_decay: float | None = None
    """By default 0.0005 for sgd, 0.05 for adamw (norms and biases are spared)."""
    schedule: Schedule = "cosine"
    """cosine down to 0; steps: a tenth after every --drop-every epochs; poly: (1 − share done)^0.9."""
    drop_every: int = 30
    """Epochs between the drops of --schedule steps."""
    warmup: float | None = None
    """Epochs at the start over which the learning rate rises from near 0; 0 for none. By default 5, but at
    most a tenth of the run."""
    ema: float = 0.0
    """Report and save, in place of the last weights, their exponential moving average with this decay per
    step, such as 0.999; 0 for none. While there are few steps, the decay is (1 + steps) / (10 + steps)."""

    default_lr: ClassVar[dict[str, float]] = {"adamw": 2e-3, "sgd": 0.1}
    default_decay: ClassVar[dict[str, float]] = {"adamw": 0.05, "sgd": 5e-4}

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems() + self.at_least(drop_every=1) + self.at_least(warmup=0, hint=" (none)")
        if not 0 <= self.ema < 1:
            found.append(f"--ema is {self.ema}; give 0 (none) or more, under 1")
        return found

    def warmup_of(self, epochs: int) -> float:
        """The epochs of warm-up in a run of ``epochs``, default resolved."""
        return self.warmup if self.warmup is not None else min(5.0, epochs / 10)

    def optimization(self, model: nn.Module, steps: int, epochs: int) -> tuple[Optimizer, LRScheduler]:
        """Return the optimiser of ``model`` and its schedule over ``steps`` in ``epochs``."""
        warmup = self.warmup_of(epochs)
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                model.parameters(),
                lr=self.peak_lr,
                momentum=0.9,
                nesterov=self.nesterov,
                weight_decay=self.decay,
            )
        else:
            optimizer = torch.optim.AdamW(parameter_groups(model, self.decay), lr=self.peak_lr)
        return optimizer, LambdaLR(
            optimizer,
            lambda step: rate_factor(self.schedule, step, steps, epochs, warmup, self.drop_every),
        )


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Split the parameters: matrices decay by ``decay``, vectors (norms and biases) do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
