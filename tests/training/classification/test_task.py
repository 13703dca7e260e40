import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mgic_geo.model_file import Card
from mgic_geo.training.classification import task
from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.classification.task import ClassificationTask
from mgic_geo.training.errors import UsageError
from mgic_geo.training.outcome import Judgement

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 1.0]])
HISTORY = [{"epoch": 1.0, "train_loss": 0.5, "train_accuracy": 0.75, "lr": 0.1, "seconds": 2.0}]


class Pets(ClassificationTask[Any, Any, Card]):
    """Two features a sample, which are the logits."""

    def load(self, config: Any, saved: Card | None) -> Any:
        raise AssertionError("the samples are there")

    card = load  # type: ignore[assignment]

    def loader(self, config: Any, samples: Any, card: Card, train: bool) -> Any:
        assert not train
        return lambda device: [(samples, torch.tensor([0, 1, 1, 1]))]

    def gallery(self, path: Path, samples: Any, card: Card, result: Evaluation) -> None:
        path.write_text(f"{result.accuracy}")


def judged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, logits: torch.Tensor = LOGITS
) -> Judgement[Evaluation, Any]:
    model = nn.Linear(2, 2, bias=False)
    nn.init.eye_(model.weight)
    monkeypatch.setattr(task, "example_input", lambda card: torch.zeros(1, 2))
    config, card = SimpleNamespace(output=folder, data="pets"), Card("small", {}, ("cat", "dog"))
    return Pets().judge(config, model, card, logits, torch.device("cpu"), HISTORY)


def test_figures_come_before_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judgement = judged(tmp_path, monkeypatch)
    assert not list(tmp_path.glob("*.png"))  # since a picture may fail
    judgement.draw()
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "gallery.png").read_text() == "0.75"
    assert {picture.name for picture in tmp_path.glob("*.png")} == set(judgement.files)
    summary = judgement.summary
    assert (summary.model, summary.data, summary.test_accuracy) == ("small", "pets", 0.75)
    assert (summary.parameters, summary.multiply_adds, summary.epochs) == (4, 4, 1)
    assert judgement.score == 0.75


def test_a_diverged_model_is_the_users_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"evaluation: .* lower --lr"):
        judged(tmp_path, monkeypatch, LOGITS * math.nan)
