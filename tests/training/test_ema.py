from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from mgic_geo.training.ema import EMA


def test_the_average_by_hand() -> None:
    model, average = nn.Linear(1, 1, bias=False), EMA(0.5)
    average.average, expected = {"weight": torch.zeros(1, 1)}, 0.0
    for step, value in enumerate((1.0, 4.0, -2.0, 3.0, 8.0, 1.0, 0.0, 5.0, 5.0, 7.0)):
        nn.init.constant_(model.weight, value)
        average.update(model)
        keep = min(0.5, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * value
    average.put_into(model)
    assert float(model.weight.detach()) == pytest.approx(expected)


class Watch(L.Callback):
    """Compares the weights around validation with those it sees."""

    def __init__(self, ema: EMA) -> None:
        self.ema, self.trained = ema, torch.empty(0)

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        self.trained = module.model.net[0].weight.detach().clone()

    def on_validation_batch_start(self, trainer: L.Trainer, module: Any, *_: Any) -> None:
        assert torch.equal(module.model.net[0].weight, self.ema.average["net.0.weight"])
        assert not torch.equal(module.model.net[0].weight, self.trained)

    def on_train_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        assert torch.equal(module.model.net[0].weight, self.trained)


def test_validation_sees_the_average_and_training_its_own(fit: Callable[..., Any]) -> None:
    ema = EMA(0.99)
    trainer, _, _ = fit((ema, Watch(ema)), val=True)
    assert ema.steps == trainer.global_step


def test_it_changes_nothing_in_the_training_and_travels_in_the_checkpoint(
    fit: Callable[..., Any], tmp_path: Path
) -> None:
    _, plain, _ = fit(folder=tmp_path / "plain", val=True)
    ema = EMA(0.9)
    _, averaged, _ = fit((ema,), folder=tmp_path / "ema", val=True)
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(averaged.model.state_dict()[name], tensor)
    again = EMA(0.9)
    fit((again,), folder=tmp_path / "ema", val=True, resume=True)  # nothing is left to train
    assert again.steps == ema.steps
    assert all(torch.equal(again.average[name], tensor) for name, tensor in ema.average.items())
