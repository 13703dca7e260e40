import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mgic_geo.training import (
    Card,
    Evaluation,
    Fitted,
    Judgement,
    RunConfig,
    UsageError,
    conclude,
    conclude_evaluation,
    judge,
)

ROWS = [{"epoch": 1.0, "train_loss": 0.5, "train_accuracy": 0.75, "lr": 0.1, "seconds": 2.0}]
LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 1.0]])


FITTED = Fitted(ROWS, torch.device("cpu"))


def judged(
    path: Path,
    logits: torch.Tensor = LOGITS,
    gallery: Callable[[Path, Evaluation], Any] = lambda file, result: file.write_text(f"{result.accuracy}"),
) -> Judgement[Evaluation, Any]:
    model = nn.Linear(2, 2, bias=False)
    nn.init.eye_(model.weight)
    return judge(
        path,
        model,
        Card("small", {}, ("cat", "dog")),
        data="pets",
        example=torch.zeros(1, 2),
        batches=[(logits, torch.tensor([0, 1, 1, 1]))],
        gallery=gallery,
        fitted=FITTED,
    )


def test_figures_and_pictures_lie_beside_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.safetensors").touch()
    for path in (tmp_path, tmp_path / "model.safetensors"):
        judgement = judged(path)
        assert not list(tmp_path.glob("*.png"))
        judgement.draw()
        assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "gallery.png").read_text() == "0.75"
        for picture in tmp_path.glob("*.png"):
            picture.unlink()
    summary = judgement.summary
    assert (summary.model, summary.data, summary.test_accuracy) == ("small", "pets", 0.75)
    assert (summary.parameters, summary.multiply_adds, summary.epochs) == (4, 4, 1)

    conclude(RunConfig(data="pets", output=tmp_path), FITTED, judgement)
    out = capsys.readouterr().out
    for name in ("summary.json", "curves.png"):
        assert (tmp_path / name).exists()
        assert name in out
    assert json.loads((tmp_path / "summary.json").read_text())["seconds_per_epoch"] == 2.0
    conclude_evaluation(judgement)
    assert summary.table() in capsys.readouterr().out


def test_pictures_that_fail_take_no_figures_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(file: Path, result: Evaluation) -> None:
        raise OSError("no room for a picture")

    judgement = judged(tmp_path, gallery=fail)
    with pytest.raises(OSError, match="no room"):
        conclude(RunConfig(data="pets", output=tmp_path), FITTED, judgement)
    assert judgement.summary.table() in capsys.readouterr().out
    assert json.loads((tmp_path / "summary.json").read_text())["test_accuracy"] == 0.75
    with pytest.raises(OSError, match="no room"):
        conclude_evaluation(judgement)
    assert judgement.summary.table() in capsys.readouterr().out


def test_a_diverged_model_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"evaluation: .* lower --lr"):
        judged(tmp_path, LOGITS * math.nan)
