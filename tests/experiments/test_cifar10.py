import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pictures import write_image
from safetensors.torch import load_file

from mgic_geo.training import ImageCard, SaveLast, load_model

Main = Callable[[list[str]], None]


@pytest.fixture
def main(
    script: Callable[[str], Main], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Main:
    """The experiment on 8 × 8 images of two classes, of which an epoch has two steps."""
    folder, rng = tmp_path_factory.mktemp("pets"), np.random.default_rng(0)
    monkeypatch.setenv("MGIC_DATA", str(folder / "cache"))
    for split, count in (("train", 8), ("test", 3)):
        for label, shade in (("cat", 60), ("dog", 150)):
            for number in range(count):
                pixels = (shade + rng.integers(0, 60, (8, 8, 3))).astype(np.uint8)
                write_image(folder / "Pets2" / split / label / f"{number}.png", pixels)
    run = script("cifar10")
    fixed = ["--data", str(folder / "Pets2"), "--batch-size", "8", "--accelerator", "cpu"]
    return lambda arguments: run([*fixed, *arguments])


def refused(main: Main, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_two_steps_end_with_everything_written(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    main(["--epochs", "1", "--output", str(tmp_path)])
    out = capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert f"{summary['parameters']:,}" in out
    assert (summary["model"], summary["epochs"]) == ("mgic_resnet56_g8_c16", 1)
    assert summary["test_samples"] == 6
    record = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (record["recipe"], record["schedule"], record["cutout"]) == ("modern", "cosine", 8)
    for picture in ("curves.png", "confusion.png", "gallery.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    _, card = load_model(tmp_path, ImageCard)
    assert (card.classes, card.size) == (("cat", "dog"), (8, 8))
    assert 0.3 < card.mean[0] < 0.7
    assert not recwarn.list
    assert not list(tmp_path.glob(".*"))

    main(["--eval", str(tmp_path)])
    again = capsys.readouterr().out
    assert next(line for line in again.splitlines() if line.startswith("test accuracy")) in out


def test_the_papers_recipe_with_all_options(main: Main, tmp_path: Path) -> None:
    options = "--model mgic_resnet56 --group-size 4 --coarse-size 8 --channels-last --accumulate 2 --ema 0.9"
    arguments = f"--recipe paper --epochs 2 --drop-every 1 --val-fraction 0.2 --batch-size 6 {options}"
    main([*arguments.split(), "--precision", "bf16-mixed", "--output", str(tmp_path)])
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["lr"]) for row in rows] == pytest.approx([1e-3, 1e-4])
    assert 0 <= float(rows[0]["val_accuracy"]) <= 1
    assert load_model(tmp_path, ImageCard)[1].kwargs == {"group_size": 4, "coarse_size": 8}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet65"], "--model is resnet65, which is none of this task's; try resnet56"),
        (["--model", "dgcnn"], "none of this task's"),
        (["--model", "lraspp_mobilenetv3_small"], "none of this task's"),
        (["--model", "resnet56", "--group-size", "8"], "belong to MGIC models"),
        (["--coarse-size", "0", "--accumulate", "0"], "--coarse-size is 0; give 1 or more"),
        (["--ema", "1", "--warmup", "-1"], "--ema is 1.0; give 0 (none) or more, under 1"),
        (["--padding", "-1"], "--padding is -1; give 0 (none) or more pixels"),
        (["--eval", "x", "--resume"], "nothing to --resume"),
        (["--eval", "gone"], "there is no model at"),
        (["--data", "missing.zip"], "there is no file or folder missing.zip"),
        (["--batch-size", "99"], "smaller batch_size"),
    ],
)
def test_bad_values_are_refused(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert message in refused(main, ["--output", str(tmp_path / "out"), *arguments], capsys)
    assert not (tmp_path / "out" / "last.ckpt").exists()


def test_an_interrupted_run_ends_with_the_same_bytes(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    arguments = ["--model", "resnet56", "--epochs", "3", "--ema", "0.9", "--warmup", "1"]
    main([*arguments, "--output", str(whole)])
    save = SaveLast.on_train_epoch_end

    def killed(self: SaveLast, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("killed")
        save(self, trainer, module)

    monkeypatch.setattr(SaveLast, "on_train_epoch_end", killed)
    with pytest.raises(RuntimeError, match="killed"):
        main([*arguments, "--output", str(broken)])
    monkeypatch.undo()
    monkeypatch.setenv("MGIC_DATA", str(tmp_path / "cache"))
    main([*arguments, "--output", str(broken), "--resume"])
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    # What was saved is the average, not the last weights, which the checkpoint holds.
    last = torch.load(whole / "last.ckpt", weights_only=True)["state_dict"]
    saved = load_file(whole / "model.safetensors")
    assert any(not torch.equal(saved[name], last[f"model.{name}"]) for name in saved)
