import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mgic_geo.datasets import CloudLoader, load_clouds, split_validation
from mgic_geo.model_file import ModelCard, load_model, save_model

SCRIPT = Path(__file__).parents[2] / "experiments" / "modelnet10.py"
TINY = ["--points", "16", "--batch-size", "8", "--k", "4"]
Main = Callable[[list[str]], None]
Refused = Callable[[Main, list[str]], str]


@pytest.fixture
def main(script: Callable[[str], Main], tiny_data: Path) -> Main:
    """The experiment on the tiny clouds: an epoch has two steps."""
    run = script("modelnet10")
    return lambda arguments: run(["--data", str(tiny_data), *TINY, *arguments])


def test_two_steps_end_with_everything_written(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--epochs", "1", "--output", str(tmp_path)])
    out = capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert f"{summary['parameters']:,}" in out
    assert (summary["model"], summary["epochs"], summary["test_samples"]) == ("mgic_dgcnn", 1, 6)
    assert summary["multiply_adds"] > summary["parameters"]
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["k"] == 4
    assert yaml.safe_load((tmp_path / "data.yaml").read_text())["samples"] == 16
    weights = load_file(tmp_path / "model.safetensors")
    assert sum(w.numel() for name, w in weights.items() if "running" not in name) >= summary["parameters"]
    for picture in ("curves.png", "confusion.png", "gallery.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
        assert picture in out
    assert not list(tmp_path.glob(".*"))

    before = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    main(["--eval", str(tmp_path), "--output", str(tmp_path / "other")])
    again = capsys.readouterr().out
    assert next(line for line in again.splitlines() if line.startswith("test accuracy")) in out
    assert f"Written to {tmp_path / 'other'}: confusion.png, gallery.png" in again
    assert {file.name for file in (tmp_path / "other").iterdir()} == {"confusion.png", "gallery.png"}
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before


def test_the_other_recipe(main: Main, tmp_path: Path) -> None:
    model = "--model dgcnn --optimizer sgd --val-fraction 0.2 --precision bf16-mixed --epochs 1"
    augmentation = "--scale 1 --shift 0.1 --jitter 0.01 --rotate --point-dropout 0.3"
    main([*model.split(), *augmentation.split(), "--output", str(tmp_path)])
    with (tmp_path / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["lr"]) > 0.04
    assert 0 <= float(row["val_accuracy"]) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "17"], "--k is 17, but a cloud has --points 16"),
        (["--dropout", "1"], "--dropout is 1.0; give 0 or more, under 1"),
        (["--group-size", "0"], "--group-size is 0; give 1 or more"),
        (["--model", "dgcnn", "--coarse-size", "8"], "belong to mgic_dgcnn"),
        (["--scale", "0.8", "--shift", "-1"], "--scale is 0.8; give 1 (off) or more"),
        (["--eval", "x", "--resume"], "nothing to --resume"),
        (["--lr", "-1", "--epochs", "0"], "--lr is -1.0"),
        (["--data", "missing.h5"], "there is no file missing.h5"),
        (["--points", "100"], "its clouds hold 24 points, but the model takes 100; lower --points"),
        (["--epochs", "2", "--lr", "1e30"], "training diverged in epoch"),
        (["--epochs", "2", "--lr", "1e9", "--optimizer", "sgd"], "training diverged in epoch"),
        (["--seed", str(2**63)], "give a number below 2**63"),
        (["--batch-size", "99"], "smaller batch_size"),
        (["--val-fraction", "0.999"], "smaller batch_size"),
    ],
)
def test_bad_values_are_refused(
    main: Main, tmp_path: Path, refused: Refused, arguments: list[str], message: str
) -> None:
    assert message in refused(main, ["--output", str(tmp_path / "out"), *arguments])
    assert not (tmp_path / "out" / "last.ckpt").exists()


def test_a_run_is_neither_overwritten_nor_changed(main: Main, tmp_path: Path, refused: Refused) -> None:
    run = ["--epochs", "1", "--output", str(tmp_path)]
    main(run)
    before = (tmp_path / "model.safetensors").read_bytes()
    assert "--resume" in refused(main, run)
    assert "--seed: the run has 0, you gave 1" in refused(main, [*run, "--resume", "--seed", "1"])
    main([*run, "--resume"])  # nothing is left to train: the results are written again
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_evaluation_needs_the_classes_of_the_model(main: Main, tmp_path: Path, refused: Refused) -> None:
    assert "there is no model at" in refused(main, ["--eval", str(tmp_path), "--data", "missing.h5"])
    card = ModelCard("mgic_dgcnn", {"k": 4}, ("cube", "disc", "needle"), 16)
    save_model(tmp_path / "model.safetensors", card.build(), card)
    file = tmp_path / "file"
    file.touch()
    assert f"{file} is a file" in refused(main, ["--eval", str(tmp_path), "--output", str(file)])
    message = refused(main, ["--eval", str(tmp_path)])
    assert "knows the classes cube, disc, needle" in message
    assert "has ball, disc, needle" in message


def test_evaluation_needs_the_points_of_the_model(main: Main, tmp_path: Path, refused: Refused) -> None:
    card = ModelCard("mgic_dgcnn", {"k": 4}, ("ball", "disc", "needle"), 100)
    save_model(tmp_path / "model.safetensors", card.build(), card)
    message = refused(main, ["--eval", str(tmp_path)])
    assert "its clouds hold 24 points, but the model takes 100; give data with 100 points or more" in message


def test_files_of_others_are_not_replaced(main: Main, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "config.yaml").write_text("mine: 1")
    assert "config.yaml is not a run's record" in refused(main, ["--output", str(tmp_path)])
    assert (tmp_path / "config.yaml").read_text() == "mine: 1"
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    assert "holds a model but no last.ckpt" in refused(main, ["--output", str(tmp_path)])
    file = tmp_path / "file"
    file.write_text("mine")
    assert f"{file} is a file, not a folder" in refused(main, ["--output", str(file)])


def test_a_run_keeps_its_number_of_processes(
    main: Main, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ["--epochs", "1", "--output", str(tmp_path)]
    main(run)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--processes: the run has 1, you gave 2" in refused(main, [*run, "--resume"])


EPOCHS = (
    "30"  # so many that three kills, each within tenths of a second of an epoch's end, come before the last
)


def command(tiny_data: Path, output: Path, epochs: str = EPOCHS) -> list[str]:
    return [str(SCRIPT), "--data", str(tiny_data), *TINY, "--epochs", epochs, "--output", str(output)]


def rows(output: Path) -> int:
    file = output / "metrics.csv"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_killed_three_times_it_ends_with_the_same_bytes(main: Main, tiny_data: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    main(["--epochs", EPOCHS, "--output", str(whole)])
    # The same number of threads as here, since sums in another order end in other bits.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    moments = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, *command(tiny_data, killed), "--resume"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seen, deadline = rows(killed), time.monotonic() + 60
        while rows(killed) <= seen and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    main(["--epochs", EPOCHS, "--output", str(killed), "--resume"])
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert rows(killed) == rows(whole) == 1 + int(EPOCHS)


def test_torchrun_trains_with_two_processes(
    torchrun: Callable[..., subprocess.CompletedProcess[str]], tiny_data: Path, tmp_path: Path
) -> None:
    _, *arguments = command(tiny_data, tmp_path, "1")
    result = torchrun("modelnet10", [*arguments, "--batch-size", "4", "--val-fraction", "0.2"])
    assert result.stdout.count("test accuracy") == 1
    assert result.stderr.count("epoch 1/1") == 1
    assert rows(tmp_path) == 2
    # The figures are those of the model that is saved, though each process has its own batch norms' averages.
    model, card = load_model(tmp_path, ModelCard)
    held_out = split_validation(load_clouds(tiny_data)[0], 0.2, seed=0)[1]
    ((points, labels),) = CloudLoader(held_out, 32, points=card.points)
    with torch.no_grad():
        expected = torch.nn.functional.cross_entropy(model(points), labels)
    with (tmp_path / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["val_loss"]) == pytest.approx(float(expected), rel=1e-4)
