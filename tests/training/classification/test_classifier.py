import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from mgic_geo.training.classification.classifier import Classifier
from mgic_geo.training.optimizers import OptimizerConfig, parameter_groups


def test_decay_spares_norms_and_biases() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    decayed, spared = parameter_groups(model, 0.5)
    assert (decayed["weight_decay"], [tuple(p.shape) for p in decayed["params"]]) == (0.5, [(4, 3)])
    assert (spared["weight_decay"], [tuple(p.shape) for p in spared["params"]]) == (0.0, [(4,)] * 3)


def test_loss_smooths_labels() -> None:
    module = Classifier(nn.Identity(), OptimizerConfig(label_smoothing=0.2))
    logits = torch.tensor([[2.0, 0.0]])
    expected = -(0.9 * logits.log_softmax(1)[0, 0] + 0.1 * logits.log_softmax(1)[0, 1])
    torch.testing.assert_close(module.loss(logits, torch.tensor([0])), expected)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_learns_and_logs_what_it_says(fit: Callable[..., Any], optimizer: str) -> None:
    _, _, history = fit(val=True, optimizer=optimizer)
    first, last = history.rows[0], history.rows[-1]
    assert last["train_loss"] < first["train_loss"]
    assert (
        last["val_accuracy"] == 1.0
    )  # classes are plain to see; a wrong pairing of clouds and labels shows here
    assert 0 <= first["train_accuracy"] <= 1


@pytest.mark.parametrize(("optimizer", "end"), [("adamw", 0.05 / 25 / 1e4), ("sgd", 0.05 / 100)])
def test_the_rate_falls_to_its_end_by_the_last_step(
    fit: Callable[..., Any], optimizer: str, end: float
) -> None:
    trainer, _, history = fit(optimizer=optimizer)
    assert trainer.global_step == 4 * (26 // 8)
    last = trainer.global_step - (optimizer == "adamw")  # cosine: its end is one step after the last
    assert history.rows[-1]["lr"] == pytest.approx(end, abs=0.05 * (1 + math.cos(math.pi * 11 / last)))
    assert max(row["lr"] for row in history.rows) > 10 * end
