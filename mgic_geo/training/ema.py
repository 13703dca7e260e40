"""An exponential moving average of the weights, to validate and to save."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn


class EMA(Callback):
    """Averages the model's weights and normalisation statistics after each step of the optimiser.

    The t-th step, from 0, moves the average by 1 − min(decay, (1 + t) / (10 + t)) of the way to the weights:
    so the random start is soon forgotten. Validation sees the average, training its own weights. The average
    travels in the checkpoint, so a resumed run continues it.

    Args:
        decay: Share of the average that a step keeps, under 1.
    """

    def __init__(self, decay: float):
        self.decay, self.steps, self.average = decay, 0, dict[str, Tensor]()
        self._set_aside = dict[str, Tensor]()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step's weights in."""
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        state = model.state_dict()
        averaged = [name for name, tensor in state.items() if tensor.is_floating_point()]
        counters = [name for name, tensor in state.items() if not tensor.is_floating_point()]
        # On a GPU all of a list in few launches; one for each tensor would be hundreds a step.
        if averaged:
            torch._foreach_lerp_(*self._pairs(averaged, state), 1 - keep)  # type: ignore[attr-defined]
        if counters:
            torch._foreach_copy_(*self._pairs(counters, state))  # type: ignore[attr-defined]
        self.steps += 1

    def _pairs(self, names: list[str], state: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        return [self.average[name] for name in names], [state[name] for name in names]

    @torch.no_grad()
    def put_into(self, model: nn.Module) -> None:
        """Give ``model`` the averaged weights."""
        for name, tensor in model.state_dict().items():
            tensor.copy_(self.average[name])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the weights as they are, or bring a checkpoint's average to the device."""
        state = self.average or {name: tensor.clone() for name, tensor in _state(pl_module).items()}
        self.average = {name: tensor.to(pl_module.device) for name, tensor in state.items()}
        self._before = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Follow the optimiser, which accumulates gradients over some batches before it steps."""
        if trainer.global_step > self._before:
            self._before = trainer.global_step
            self.update(_model(pl_module))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the training's weights aside."""
        self._set_aside = {name: tensor.clone() for name, tensor in _state(pl_module).items()}
        self.put_into(_model(pl_module))

    @torch.no_grad()
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bring them back."""
        for name, tensor in _state(pl_module).items():
            tensor.copy_(self._set_aside[name])
        self._set_aside = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the average, for the checkpoint."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the average back from a checkpoint."""
        self.steps, self.average = state_dict["steps"], state_dict["average"]


def _model(module: L.LightningModule) -> nn.Module:
    model = module.model
    assert isinstance(model, nn.Module)
    return model


def _state(module: L.LightningModule) -> dict[str, Tensor]:
    return _model(module).state_dict()
