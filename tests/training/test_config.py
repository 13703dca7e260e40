import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mgic_geo.training.config import Flags, RunConfig
from mgic_geo.training.errors import UsageError
from mgic_geo.training.optimizers import OptimizerConfig


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(data="shapes", output=tmp_path / "run")


def test_good_values_have_no_problems(config: RunConfig) -> None:
    assert config.problems() == []
    assert OptimizerConfig().problems() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "--epochs is 0; give 1 or more"),
        ({"batch_size": 1}, "--batch-size is 1; give 2 or more"),
        ({"seed": -1}, "--seed is -1; give 0 or more"),
        ({"accelerator": "cpu", "precision": "16-mixed"}, "on CPU use bf16-mixed"),
    ],
)
def test_bad_values_are_named_with_the_remedy(
    config: RunConfig, change: dict[str, Any], message: str
) -> None:
    (problem,) = replace(config, **change).problems()
    assert message in problem


@dataclass(kw_only=True)
class Small(Flags):
    half_width: float | None = 1
    part: float = 0.5

    def problems(self) -> list[str]:
        return super().problems() + self.at_least(half_width=1, hint=" (thin)") + self.shares("part")


@pytest.mark.parametrize("value", [0, -math.inf, math.inf, math.nan])
def test_all_that_is_wrong_is_said_at_once(value: float) -> None:
    Small().validate()
    Small(half_width=None, part=0).validate()
    with pytest.raises(UsageError) as caught:
        Small(half_width=value, part=1).validate()
    assert str(caught.value).splitlines() == [
        f"--half-width is {value}; give 1 (thin) or more",
        "       --part is 1; give 0 or more, under 1",
    ]


@pytest.mark.parametrize(
    ("gpus", "change", "message"),
    [
        (0, {"accelerator": "gpu"}, "no GPU here"),
        (0, {"precision": "16-mixed"}, "needs a GPU"),
    ],
)
def test_gpus_are_counted(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, gpus: int, change: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    (problem,) = replace(config, **change).problems()
    assert message in problem


@pytest.mark.parametrize(
    "change", [{"lr": 0.0}, {"lr": float("nan")}, {"weight_decay": -1.0}, {"label_smoothing": 1.0}]
)
def test_bad_optimiser_values_are_named(change: dict[str, Any]) -> None:
    (problem,) = OptimizerConfig(**change).problems()
    assert problem.startswith("--" + next(iter(change)).replace("_", "-"))


def test_defaults_follow_the_optimiser() -> None:
    adamw, sgd = OptimizerConfig(optimizer="adamw"), OptimizerConfig(optimizer="sgd")
    assert (adamw.peak_lr, adamw.decay) == (6e-3, 0.05)
    assert (sgd.peak_lr, sgd.decay) == (0.1, 1e-4)
    assert OptimizerConfig(lr=0.5, weight_decay=0.0).decay == 0.0
