from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from mgic_geo.training.training_config import TrainingConfig, parse_training, scan_flag


@dataclass(kw_only=True)
class Config(TrainingConfig):
    """Flags of a test."""

    data: str = "pets"
    output: Path = Path("runs/pets")


def test_devices_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Config(devices=2).problems() == []
    assert replace(Config(), devices=3, accelerator="cpu").problems() == []
    assert Config(devices=3).problems() == ["--devices is 3, but PyTorch sees 2 GPU(s); give at most that"]
    assert Config(devices=0).problems() == ["--devices is 0; give 1 or more"]


def test_by_default_a_saved_model_is_judged_where_it_lies(tmp_path: Path) -> None:
    def output(*arguments: str) -> Path:
        return parse_training(Config, arguments, "A test.", {"epochs": 3}).output

    assert output() == Path("runs/pets")
    assert output("--eval", "None") == Path("runs/pets")
    assert output("--eval", str(tmp_path)) == tmp_path
    assert output(f"--eval={tmp_path}/model.safetensors") == tmp_path
    assert output("--eval", "mgic_dgcnn_modelnet10") == Path()
    assert output("--eval", str(tmp_path), "--output", "runs/pets") == Path("runs/pets")
    assert parse_training(Config, [], "A test.", {"epochs": 3}).epochs == 3


def test_a_flag_is_found_among_others() -> None:
    arguments = ["--data", "x", "--eval", "runs/a", "--resume"]
    assert scan_flag("--eval", arguments) == "runs/a"
    assert scan_flag("--recipe", arguments) is None
    assert scan_flag("--eval", ["--eval"]) is None
