from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

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


class Launches(TorchDispatchMode):
    """Counts operators that compute; a view of memory, as ``state_dict`` takes, launches nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += "detach" not in str(func)
        return func(*args, **(kwargs or {}))


class Mixed(nn.Module):
    """Weights of two types and layouts, one of them twice, statistics and a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last), nn.BatchNorm2d(4)  # type: ignore[call-overload]
        self.lin, self.tied = nn.Linear(4, 2).double(), nn.Linear(4, 2).double()
        self.tied.weight = self.lin.weight


def test_a_step_is_a_few_launches_and_gives_what_each_tensor_gives_alone() -> None:
    model, average, alone = Mixed(), EMA(0.9), dict[str, Tensor]()
    alone |= {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average.average = {name: tensor.clone() for name, tensor in alone.items()}
    for step in range(5):
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor += torch.randn_like(tensor) if tensor.is_floating_point() else 1
        for name, tensor in model.state_dict().items():
            moved = (
                tensor if name.endswith("tracked") else alone[name].lerp(tensor, 1 - (1 + step) / (10 + step))
            )
            alone[name] = moved.clone()
        with Launches() as launches:
            average.update(model)
        assert launches.count == 2
    assert all(torch.equal(average.average[name], tensor) for name, tensor in alone.items())


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
