import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from mgic_geo.training.trainer import make_trainer
from mgic_geo.training.training_config import TrainingConfig


def test_the_launchers_numbers_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainingConfig(data="", output=tmp_path, accelerator="cpu", devices=2)
    trainer = make_trainer(config, tmp_path / "last.ckpt", [], validate=False)
    assert (trainer.num_devices, trainer.num_nodes) == (2, 1)
    assert isinstance(trainer.strategy, DDPStrategy)
    variables = {"RANK": 3, "LOCAL_RANK": 1, "GROUP_RANK": 1, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2}
    for name, value in (variables | {"TORCHELASTIC_RUN_ID": "x"}).items():
        monkeypatch.setenv(name, str(value))
    trainer = make_trainer(replace(config, devices=1), tmp_path / "last.ckpt", [], validate=False)
    assert (trainer.world_size, trainer.num_nodes, trainer.global_rank) == (4, 2, 3)


@pytest.mark.parametrize("asked", [False, True])
def test_deterministic_algorithms_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # which the trainer sets
    config = TrainingConfig(data="", output=tmp_path, accelerator="cpu", deterministic=asked)
    try:
        make_trainer(config, tmp_path / "last.ckpt", [], validate=False)
        assert torch.are_deterministic_algorithms_enabled() == asked
        assert torch.is_deterministic_algorithms_warn_only_enabled() == asked
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("devices", [1, 2])
def test_sigterm_ends_each_of_several_processes(tmp_path: Path, devices: int) -> None:
    config = TrainingConfig(data="", output=tmp_path, devices=devices, accelerator="cpu")
    trainer: Any = make_trainer(config, tmp_path / "last.ckpt", [], validate=False)
    before = signal.getsignal(signal.SIGTERM)
    try:
        trainer._signal_connector.register_signal_handlers()
        for callback in trainer.callbacks:
            callback.on_train_start(trainer, None)
        assert (signal.getsignal(signal.SIGTERM) == signal.SIG_DFL) == (devices > 1)
    finally:
        signal.signal(signal.SIGTERM, before)
