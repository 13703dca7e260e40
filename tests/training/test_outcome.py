import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mgic_geo.training.classification.classifier import ACCURACY
from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.classification.report import summarize
from mgic_geo.training.config import RunConfig
from mgic_geo.training.outcome import Judgement, conclude, conclude_evaluation

HISTORY = [{"epoch": 1.0, "train_loss": 0.5, "train_accuracy": 0.75, "lr": 0.1, "seconds": 2.0}]


@pytest.fixture
def judgement(tmp_path: Path) -> Judgement[Evaluation, Any]:
    result = Evaluation(torch.eye(2), torch.tensor([0, 1]), ("cat", "dog"))
    cpu = torch.device("cpu")
    summary = summarize("small", "pets", result, parameters=4, multiply_adds=4, device=cpu, history=HISTORY)
    return Judgement(
        result,
        summary,
        draw=(tmp_path / "gallery.png").touch,
        text=summary.table(),
        score=result.accuracy,
        measure=ACCURACY,
        files=("confusion.png", "gallery.png"),
    )


def test_a_run_ends_with_figures_and_pictures(
    judgement: Judgement[Evaluation, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conclude(RunConfig(data="pets", output=tmp_path), judgement, HISTORY)
    out = capsys.readouterr().out
    for name in ("summary.json", "curves.png", "gallery.png"):
        assert (tmp_path / name).exists()
        assert name in out
    assert json.loads((tmp_path / "summary.json").read_text())["seconds_per_epoch"] == 2.0
    conclude_evaluation(RunConfig(data="pets", output=tmp_path), judgement)
    out = capsys.readouterr().out
    assert judgement.text in out
    assert f"Written to {tmp_path.resolve()}: confusion.png, gallery.png" in out


def test_pictures_that_fail_take_no_figures_along(
    judgement: Judgement[Evaluation, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError("no room for a picture")

    judgement = replace(judgement, draw=fail)
    with pytest.raises(OSError, match="no room"):
        conclude(RunConfig(data="pets", output=tmp_path), judgement, HISTORY)
    assert judgement.text in capsys.readouterr().out
    assert json.loads((tmp_path / "summary.json").read_text())["test_accuracy"] == 1
    with pytest.raises(OSError, match="no room"):
        conclude_evaluation(RunConfig(data="pets", output=tmp_path), judgement)
    assert judgement.text in capsys.readouterr().out
