import pytest
import torch
from torch import nn

from mgic_geo.training.optimizers import ImageOptimizerConfig, OptimizerConfig
from mgic_geo.training.schedule import rate_factor


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_optimiser_follows_it(optimizer: str) -> None:
    config = ImageOptimizerConfig(optimizer=optimizer, warmup=1)  # type: ignore[arg-type]
    stepper, schedule = config.optimization(nn.Linear(2, 2), steps=8, epochs=4)
    rates = []
    for _ in range(8):
        rates.append(stepper.param_groups[0]["lr"])
        stepper.step()
        schedule.step()
    peak = config.peak_lr
    assert rates == pytest.approx([peak * rate_factor("cosine", s, 8, 4, warmup=1) for s in range(8)])
    assert torch.tensor(rates).argmax() == 2


@pytest.mark.parametrize(("epochs", "warmup"), [(100, 5.0), (50, 5.0), (30, 3.0), (2, 0.2), (1, 0.1)])
def test_by_default_a_tenth_of_the_run_warms_up_and_5_epochs_at_most(epochs: int, warmup: float) -> None:
    assert ImageOptimizerConfig().warmup_of(epochs) == pytest.approx(warmup)
    assert ImageOptimizerConfig(warmup=0.0).warmup_of(epochs) == 0
    assert ImageOptimizerConfig(warmup=7.0).warmup_of(epochs) == 7


def test_a_short_run_reaches_its_rate() -> None:
    stepper, schedule = ImageOptimizerConfig(lr=0.5).optimization(nn.Linear(2, 2), steps=40, epochs=2)
    rates = []
    for _ in range(40):
        rates.append(stepper.param_groups[0]["lr"])
        stepper.step()
        schedule.step()
    assert rates[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert rates[4:] == sorted(rates[4:], reverse=True)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("kind", [OptimizerConfig, ImageOptimizerConfig])
def test_a_single_step_moves_the_weights(kind: type[OptimizerConfig], optimizer: str) -> None:
    config = kind(optimizer=optimizer)  # type: ignore[arg-type]
    stepper, _ = config.optimization(nn.Linear(2, 2), steps=1, epochs=1)
    assert stepper.param_groups[0]["lr"] > config.peak_lr / 100
