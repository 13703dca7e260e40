import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mgic_geo.training import (
    Flags,
    OptimizerConfig,
    RunConfig,
    UsageError,
    blaming,
    check_target,
    claim_folder,
    claim_output,
    global_rank,
    plain_errors,
    write_text,
)
from mgic_geo.training import config as config_module


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig(data="shapes", output=tmp_path / "run")


@pytest.fixture
def checkpoint(config: RunConfig) -> Path:
    return config.output / "last.ckpt"


def test_good_values_have_no_problems(config: RunConfig) -> None:
    assert config.problems() == []
    assert OptimizerConfig().problems() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "--epochs is 0; give 1 or more"),
        ({"batch_size": 1}, "--batch-size is 1; give 2 or more"),
        ({"seed": -1}, "--seed is -1; give 0 or more"),
        ({"devices": 0}, "--devices is 0"),
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


def test_a_text_that_cannot_be_written_is_blamed_on_its_flag(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "table.md", "text\n")
    assert (tmp_path / "new" / "table.md").read_text() == "text\n"
    with pytest.raises(UsageError, match=r"^--plot: "):
        write_text(tmp_path / "new" / "table.md" / "below", "", "--plot")


@pytest.mark.parametrize(
    ("gpus", "change", "message"),
    [
        (0, {"accelerator": "gpu"}, "no GPU here"),
        (0, {"precision": "16-mixed"}, "needs a GPU"),
        (2, {"devices": 3}, "sees 2 GPU"),
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


def test_the_output_folder_gets_a_record_that_yaml_reads(config: RunConfig, checkpoint: Path) -> None:
    claim_output(config, checkpoint)
    record = yaml.safe_load((config.output / "config.yaml").read_text())
    assert record["output"] == str(config.output)
    assert record["resume"] is False


def test_a_finished_epoch_is_never_overwritten(config: RunConfig, checkpoint: Path) -> None:
    claim_output(config, checkpoint)
    claim_output(config, checkpoint)  # nothing was trained yet, so nothing can be lost
    checkpoint.touch()
    with pytest.raises(UsageError, match="already holds a run"):
        claim_output(config, checkpoint)


def test_resuming_needs_the_same_settings(config: RunConfig, checkpoint: Path) -> None:
    claim_output(config, checkpoint)
    checkpoint.touch()
    claim_output(replace(config, resume=True), checkpoint)
    claim_output(replace(config, resume=True), checkpoint)
    with pytest.raises(UsageError, match=r"--epochs: the run has 30, you gave 7(.|\n)*another --output"):
        claim_output(replace(config, resume=True, epochs=7), checkpoint)
    (config.output / "config.yaml").unlink()
    with pytest.raises(UsageError, match=r"config\.yaml is missing"):
        claim_output(replace(config, resume=True), checkpoint)


@dataclass(kw_only=True)
class FilesConfig(RunConfig):
    workers: int | None = None
    verify: bool = True
    skip_corrupt: bool = False


def test_what_cannot_change_the_result_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("pets", "cats"):
        (tmp_path / folder).mkdir()
    first = FilesConfig(data="pets", output=tmp_path / "run")
    checkpoint = first.output / "last.ckpt"
    claim_output(first, checkpoint)
    checkpoint.touch()
    resumed = replace(first, resume=True)
    for changes in (
        {"workers": 3, "verify": False},
        {"data": str(tmp_path / "pets")},
        {"data": "./cats/../pets/"},
    ):
        claim_output(replace(resumed, **changes), checkpoint)
    for changes in ({"data": "cats"}, {"data": "gone"}, {"skip_corrupt": True}):
        with pytest.raises(UsageError, match=r"cannot resume .* with other settings"):
            claim_output(replace(resumed, **changes), checkpoint)


def test_a_moved_run_may_go_on(config: RunConfig, checkpoint: Path, tmp_path: Path) -> None:
    claim_output(config, checkpoint)
    checkpoint.touch()
    config.output.rename(tmp_path / "moved")
    claim_output(replace(config, resume=True, output=tmp_path / "moved"), tmp_path / "moved" / "last.ckpt")


def test_a_folder_is_claimed_for_good_by_its_results_only(config: RunConfig) -> None:
    def claim(**changes: Any) -> None:
        claim_folder(config.output, replace(config, **changes), "results.json")

    claim(seed=1)
    claim()  # the run before it ended without a result
    record = config.output / "config.yaml"
    assert yaml.safe_load(record.read_text())["seed"] == 0
    (config.output / "results.json").touch()
    claim()  # the same again
    with pytest.raises(UsageError, match="already holds a run with other settings"):
        claim(seed=1)
    (config.output / "results.json").unlink()
    for others in ("lr: 1\nseed: 0\n", "a note", "\t{"):
        record.write_text(others)
        with pytest.raises(UsageError, match="is the record of something else"):
            claim()
        assert record.read_text() == others


def test_a_target_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_target("--output", None)
    check_target("--output", tmp_path / "new" / "folders" / "table.md")
    (tmp_path / "file").touch()
    check_target("--output", tmp_path / "file")
    with pytest.raises(UsageError, match=r"^--plot .* is a folder; name a file in it$"):
        check_target("--plot", tmp_path)
    with pytest.raises(UsageError, match="file is a file, not a folder; choose another place"):
        check_target("--output", tmp_path / "file" / "new" / "table.md")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UsageError, match="nothing may be written into "):
        check_target("--output", tmp_path / "table.md")


def test_plain_errors_show_the_message_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, plain_errors(), blaming("--data x"):
        raise ValueError("no such thing")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: --data x: no such thing\n"


@pytest.mark.parametrize("rank", [0, 3])
def test_other_ranks_speak_after_a_wait(
    rank: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_module, "GRACE", 0.5)
    monkeypatch.setenv("RANK", str(rank))
    start = time.monotonic()
    with pytest.raises(SystemExit), plain_errors():
        raise UsageError("mine alone")
    assert (time.monotonic() - start >= 0.5) == (rank > 0)
    assert capsys.readouterr().err == "error: mine alone\n"


def test_other_ranks_are_silent_where_rank_0_has_ended(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    parents = iter([7, 7, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    with pytest.raises(SystemExit) as caught, plain_errors():
        raise UsageError("said by rank 0")
    assert caught.value.code == 2
    assert capsys.readouterr().err == ""


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError), plain_errors(), blaming("--data x"):
        raise RuntimeError("a bug")


def test_the_rank_is_read_from_the_launchers_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert global_rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert global_rank() == 1
    monkeypatch.setenv("RANK", "3")
    assert global_rank() == 3
