import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mgic_geo.training import (
    Card,
    Evaluation,
    Fitted,
    RunConfig,
    UsageError,
    conclude,
    conclude_evaluation,
    judge,
)

ROWS = [{"epoch": 1.0, "train_loss": 0.5, "train_accuracy": 0.75, "lr": 0.1, "seconds": 2.0}]
LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 1.0]])


def judged(path: Path, logits: torch.Tensor = LOGITS) -> tuple[Evaluation, Any, Fitted]:
    fitted = Fitted(ROWS, torch.device("cpu"))
    model = nn.Linear(2, 2, bias=False)
    nn.init.eye_(model.weight)
    result, summary = judge(
        path,
        model,
        Card("small", {}, ("cat", "dog")),
        data="pets",
        example=torch.zeros(1, 2),
        batches=[(logits, torch.tensor([0, 1, 1, 1]))],
        gallery=lambda file, result: file.write_text(f"{result.accuracy:.0%}"),
        fitted=fitted,
    )
    return result, summary, fitted


def test_figures_and_pictures_lie_beside_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.safetensors").touch()
    for path in (tmp_path, tmp_path / "model.safetensors"):
        result, summary, fitted = judged(path)
        assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "gallery.png").read_text() == "75%"
        for picture in tmp_path.glob("*.png"):
            picture.unlink()
    assert (summary.model, summary.data, summary.test_accuracy) == ("small", "pets", 0.75)
    assert (summary.parameters, summary.multiply_adds, summary.epochs) == (4, 4, 1)

    conclude(RunConfig(data="pets", output=tmp_path), fitted, result, summary)
    out = capsys.readouterr().out
    for name in ("summary.json", "curves.png"):
        assert (tmp_path / name).exists()
        assert name in out
    assert json.loads((tmp_path / "summary.json").read_text())["seconds_per_epoch"] == 2.0
    conclude_evaluation(summary)
    assert summary.table() in capsys.readouterr().out


def test_a_diverged_model_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"evaluation: .* lower --lr"):
        judged(tmp_path, LOGITS * math.nan)
