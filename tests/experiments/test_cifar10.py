import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mgic_geo.model_file import ImageCard, load_model
from mgic_geo.training.classification.classifier import Classifier

Main = Callable[[list[str]], None]


@pytest.fixture(scope="session")
def pets(make_images: Callable[..., Path]) -> Path:
    """8 × 8 images of two classes."""
    return make_images("Pets2", lambda _: (8, 8), train=8, test=3)


@pytest.fixture(autouse=True)
def cache(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded images, for the processes that a test starts as well."""
    monkeypatch.setenv("MGIC_DATA", str(pets.parent / "cache"))


@pytest.fixture
def main(script: Callable[[str], Main], pets: Path) -> Main:
    """The experiment on them: an epoch has two steps."""
    run = script("cifar10")
    fixed = ["--data", str(pets), "--batch-size", "8", "--accelerator", "cpu"]
    return lambda arguments: run([*fixed, *arguments])


def test_two_steps_end_with_everything_written(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
        (["--padding", "-1"], "--padding is -1; give 0 (none) or more"),
        (["--eval", "x", "--resume"], "nothing to --resume"),
        (["--eval", "gone"], "there is no model at"),
        (["--data", "missing.zip"], "there is no file or folder missing.zip"),
        (["--batch-size", "99"], "smaller batch_size"),
        (["--model", "resnet56", "--epochs", "2", "--lr", "1e30"], "training diverged in epoch 1"),
    ],
)
def test_bad_values_are_refused(
    refused: Callable[..., str], main: Main, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in refused(main, ["--output", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out" / "last.ckpt").exists()


def test_an_interrupted_run_ends_with_the_same_bytes(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    # 12 images train, so of the 3 batches of an epoch the first two make one step, and the last another.
    options = (
        "--model resnet56 --epochs 3 --warmup 1 --ema 0.9 --val-fraction 0.2 --batch-size 4 --accumulate 2"
    )
    main([*options.split(), "--output", str(whole)])
    step, batches = Classifier.training_step, 0

    def killed(self: Classifier, batch: Any, batch_idx: int) -> Any:
        nonlocal batches
        batches += 1
        if batches == 5:  # within the second epoch, between two batches of one step
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "training_step", killed)
        with pytest.raises(RuntimeError, match="killed"):
            main([*options.split(), "--output", str(broken)])
    main([*options.split(), "--output", str(broken), "--resume"])
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    last, resumed = (torch.load(folder / "last.ckpt", weights_only=True) for folder in (whole, broken))
    assert last["global_step"] == resumed["global_step"] == last["callbacks"]["EMA"]["steps"] == 6
    # What was saved is the average, not the last weights, which the checkpoint holds.
    saved = load_file(whole / "model.safetensors")
    assert any(not torch.equal(saved[name], last["state_dict"][f"model.{name}"]) for name in saved)
    assert all(
        torch.equal(resumed["state_dict"][name], last["state_dict"][name]) for name in last["state_dict"]
    )


def test_torchrun_shares_the_images_between_two_processes(
    torchrun: Callable[..., subprocess.CompletedProcess[str]], pets: Path, tmp_path: Path
) -> None:
    arguments = f"--data {pets} --model resnet56 --epochs 1 --batch-size 4 --ema 0.5 --output {tmp_path}"
    result = torchrun("cifar10", arguments.split())
    assert result.stdout.count("test accuracy") == 1
    assert result.stderr.count("epoch 1/1") == 1
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["processes"] == 2
    # 16 images are 4 batches of 4; each of two processes takes 2 of them.
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2
    assert last["state_dict"]["model.bn1.num_batches_tracked"] == 2
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(tmp_path / "model.safetensors").values())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["epochs"], summary["test_samples"]) == (1, 6)
    assert 0 <= summary["test_accuracy"] <= 1


def test_two_processes_that_diverge_say_so_once(
    torchrun: Callable[..., subprocess.CompletedProcess[str]], pets: Path, tmp_path: Path
) -> None:
    options = f"--data {pets} --model resnet56 --epochs 3 --batch-size 4 --lr 1e30"
    result = torchrun("cifar10", [*options.split(), "--output", str(tmp_path)], status=1)
    assert result.stderr.count("error: training diverged in epoch 1: lower --lr, which is 1e+30") == 1
    assert not (tmp_path / "last.ckpt").exists()
