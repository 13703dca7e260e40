import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from pictures import write_image
from safetensors.torch import load_file

from mgic_geo.model_file import ImageCard, load_model
from mgic_geo.training.checkpoint import SaveLast

Main = Callable[[list[str]], None]


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bright sky above a dark road, and a patch without label: an image of 36 × 40 and its mask."""
    mask = np.zeros((36, 40), np.uint8)
    mask[rng.integers(12, 24) :] = 3
    image = np.where(mask[..., None] == 0, 180, 60) + rng.integers(0, 40, (36, 40, 3))
    mask[:6, :9] = 11
    return image.astype(np.uint8), mask


@pytest.fixture
def scenes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five scenes to train on and three to judge by, in CamVid's layout."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    monkeypatch.setenv("MGIC_DATA", str(folder / "cache"))
    for split, count in (("train", 5), ("val", 3)):
        for number in range(count):
            image, mask = scene(rng)
            write_image(folder / "Scenes" / split / f"{number}.png", image)
            write_image(folder / "Scenes" / f"{split}annot" / f"{number}.png", mask)
    return folder / "Scenes"


@pytest.fixture
def main(script: Callable[[str], Main], scenes: Path) -> Main:
    """The experiment on them: an epoch has two steps."""
    run = script("segmentation")
    fixed = ["--data", str(scenes), "--batch-size", "2", "--accelerator", "cpu"]
    small = ["--model", "lraspp_mobilenetv3_small"]
    return lambda arguments: run([*fixed, *small, *arguments])


def refused(main: Main, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_two_steps_end_with_everything_written(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--model", "lraspp_mgic_mobilenetv3_small", "--epochs", "1", "--output", str(tmp_path)])
    out = capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert f"{summary['parameters']:,}" in out
    assert (summary["model"], summary["epochs"]) == ("lraspp_mgic_mobilenetv3_small", 1)
    assert summary["images"] == 3
    assert 0 <= summary["miou"] <= 1
    assert summary["class_iou"].keys() == {
        "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist"
    }  # fmt: skip
    assert (tmp_path / "iou.md").read_text() in out
    record = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (record["recipe"], record["schedule"], record["optimizer"]) == ("modern", "poly", "adamw")
    for picture in ("curves.png", "iou.png", "gallery.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    _, card = load_model(tmp_path, ImageCard)
    assert (len(card.classes), card.size) == (11, (36, 40))
    assert not list(tmp_path.glob(".*"))

    main(["--eval", str(tmp_path), "--output", str(tmp_path / "other")])
    capsys.readouterr()
    assert {file.name for file in (tmp_path / "other").iterdir()} == {"iou.md", "iou.png", "gallery.png"}
    (tmp_path / "gallery.png").unlink()
    main(["--eval", str(tmp_path)])
    again = capsys.readouterr().out
    assert next(line for line in again.splitlines() if line.startswith("mIoU")) in out
    assert (tmp_path / "iou.md").read_text() in again
    assert (tmp_path / "gallery.png").exists()


def test_the_papers_recipe_with_all_options(main: Main, tmp_path: Path) -> None:
    options = "--ohem 0.5 --class-weights median --label-smoothing 0.1 --accumulate 2 --ema 0.9"
    arguments = f"--recipe paper --epochs 2 --crop 32 34 --scale-max 1 --val-fraction 0.2 {options}"
    main([*arguments.split(), "--precision", "bf16-mixed", "--output", str(tmp_path)])
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    # One step an epoch: the rate of the second is (1 − 1/2)^0.9 of the first's.
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.007, 0.007 * 0.5**0.9])
    assert 0 <= float(rows[0]["val_miou"]) <= 1
    assert json.loads((tmp_path / "summary.json").read_text())["held_out_miou"] == float(rows[1]["val_miou"])


def test_cityscapes_is_read_from_its_files(main: Main, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1)):
        for number in range(count):
            image, mask = scene(rng)
            key = f"{split}/ulm/ulm_{number:06d}_000019"
            write_image(tmp_path / f"City/leftImg8bit/{key}_leftImg8bit.png", image)
            mask = np.choose(mask == 3, (23, 7)).astype(np.uint8)  # sky and road
            write_image(tmp_path / f"City/gtFine/{key}_gtFine_labelIds.png", mask)
    options = "--epochs 1 --crop 32 32 --workers 0 --class-weights root --channels-last"
    main([*options.split(), "--data", str(tmp_path / "City"), "--output", str(tmp_path / "run")])
    _, card = load_model(tmp_path / "run", ImageCard)
    assert (len(card.classes), card.size) == (19, (36, 40))


def test_training_without_a_label_is_refused(
    main: Main, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mask in (scenes / "trainannot").iterdir():
        write_image(mask, np.full((36, 40), 11, np.uint8))
    message = refused(main, ["--class-weights", "median", "--output", str(tmp_path)], capsys)
    assert "no pixel of its 5 training image(s) has a label" in message


def test_class_folders_are_no_scenes(main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        write_image(tmp_path / "pets" / split / "cat" / "0.png", np.zeros((36, 40, 3), np.uint8))
    message = refused(main, ["--data", str(tmp_path / "pets"), "--output", str(tmp_path / "run")], capsys)
    assert "holds no images with masks; the layout is NAME/<split>/*.jpg" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "mobilenetv3_small"], "none of this task's; try lraspp_mobilenetv3_small"),
        (["--ohem", "0", "--crop", "8", "99"], "--ohem is 0.0; give more than 0, and at most 1 (all pixels)"),
        (["--ohem", "0", "--crop", "8", "99"], "--crop is 8 99; give 32 or more pixels each"),
        (["--scale-min", "2", "--scale-max", "1"], "--scale-min is 2.0 and --scale-max is 1.0; give more"),
        (["--scale-max", "inf"], "--scale-max is inf; give more than 0, and no less for --scale-max, which"),
        (["--brightness", "inf"], "--brightness is inf; give 0 (none) or more"),
        (["--contrast", "-1"], "--contrast is -1.0; give 0 (none) or more"),
        (["--norm-momentum", "0"], "--norm-momentum is 0.0; give more than 0"),
        (["--workers", "-1"], "--workers is -1; give 0"),
        (["--no-verify", "--skip-corrupt"], "leave --no-verify out"),
        (
            ["--precision", "bf16-mixed", "--channels-last"],
            "gives wrong gradients on CPU",
        ),
        (["--eval", "gone"], "there is no model at"),
        (["--data", "missing.zip"], "there is no file or folder missing.zip"),
        (["--data", "."], "holds no images with masks; the layout is NAME/<split>/*.jpg"),
        (["--batch-size", "99"], "smaller batch_size"),
    ],
)
def test_bad_values_are_refused(
    main: Main,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(main, ["--output", str(tmp_path / "out"), *arguments], capsys)
    assert not (tmp_path / "out" / "last.ckpt").exists()


def test_an_interrupted_run_ends_with_the_same_bytes(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = "--ohem 0.5 --class-weights root --crop 32 32"
    arguments = f"--epochs 3 --ema 0.9 --warmup 1 {options}".split()
    main([*arguments, "--output", str(whole)])
    save = SaveLast.on_train_epoch_end

    def killed(self: SaveLast, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("killed")
        save(self, trainer, module)

    with monkeypatch.context() as patch:
        patch.setattr(SaveLast, "on_train_epoch_end", killed)
        with pytest.raises(RuntimeError, match="killed"):
            main([*arguments, "--output", str(broken)])
    main([*arguments, "--output", str(broken), "--resume"])
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    states = [torch.load(run / "last.ckpt", weights_only=True) for run in (whole, broken)]
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in _rows(state)] for state in states]
    assert rows[0] == rows[1]


def _rows(state: dict[str, Any]) -> list[dict[str, float]]:
    (rows,) = (s["rows"] for s in state["callbacks"].values() if "rows" in s)
    return rows


def test_torchrun_shares_the_images_between_two_processes(
    torchrun: Callable[..., subprocess.CompletedProcess[str]], scenes: Path, tmp_path: Path
) -> None:
    options = "--model lraspp_mobilenetv3_small --epochs 1 --batch-size 2 --crop 32 32 --class-weights root"
    result = torchrun("segmentation", [*options.split(), "--data", str(scenes), "--output", str(tmp_path)])
    assert result.stderr.count("epoch 1/1") == 1
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["global_step"] == 1  # each process takes a batch of two of the five scenes
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["images"], result.stdout.count("mIoU")) == (3, 1)
    assert all(bool(tensor.isfinite().all()) for tensor in load_file(tmp_path / "model.safetensors").values())
