import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mgic_geo.training.divergence import has_diverged, naming_divergence, refuse_divergence
from mgic_geo.training.errors import UsageError

OPTIMIZER = SimpleNamespace(defaults={"lr": 0.5})
TRAINER: Any = SimpleNamespace(current_epoch=2, optimizers=[OPTIMIZER])
MESSAGE = r"^training diverged in epoch 3: lower --lr, which is 0\.5$"


def model(weight: float) -> nn.Module:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, weight)
    return layer


@pytest.mark.parametrize(
    ("weight", "loss"), [(1.0, math.nan), (1.0, math.inf), (math.nan, 1.0), (math.inf, 1.0)]
)
def test_a_loss_or_a_weight_that_is_not_finite_is_refused(weight: float, loss: float) -> None:
    with pytest.raises(UsageError, match=MESSAGE):
        refuse_divergence(model(weight), torch.tensor(loss), TRAINER)


def test_finite_ones_pass() -> None:
    refuse_divergence(model(1e30), torch.tensor(1e30), TRAINER)


def test_an_error_is_blamed_on_weights_that_exploded_only() -> None:
    with pytest.raises(UsageError, match=MESSAGE), naming_divergence(model(1e4), TRAINER):
        raise ValueError("consequence")
    with pytest.raises(ValueError, match="a bug"), naming_divergence(model(1.0), TRAINER):
        raise ValueError("a bug")


def test_weights_show_that_a_training_diverged() -> None:
    assert not has_diverged(model(-999.0))
    assert all(has_diverged(model(weight)) for weight in (-1e3, math.inf, math.nan))
