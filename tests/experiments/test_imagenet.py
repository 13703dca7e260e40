import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mgic_geo.model_file import ImageCard, load_model

Main = Callable[[list[str]], None]


@pytest.fixture
def main(
    script: Callable[[str], Main], make_images: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Main:
    """The experiment on images of several sizes of two classes, of which an epoch has two steps."""
    pets = make_images("pets", lambda number: (40 + number, 50), train=5, val=2)
    monkeypatch.setenv("MGIC_DATA", str(pets.parent / "cache"))
    run = script("imagenet")
    fixed = ["--data", str(pets), "--batch-size", "4", "--size", "32", "--workers", "0"]
    small = ["--model", "mobilenetv3_small", "--accelerator", "cpu"]
    return lambda arguments: run([*fixed, *small, *arguments])


def test_two_steps_end_with_everything_written(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = "--val-fraction 0.2 --rand-augment 9 --erase 0.5 --ema 0.99 --channels-last"
    main([*more.split(), "--epochs", "1", "--output", str(tmp_path)])
    out = capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["model"], summary["epochs"], summary["test_samples"]) == ("mobilenetv3_small", 1, 4)
    for picture in ("curves.png", "confusion.png", "gallery.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert load_model(tmp_path, ImageCard)[1].size == (32, 32)

    main(["--eval", str(tmp_path)])
    again = capsys.readouterr().out
    assert next(line for line in again.splitlines() if line.startswith("test accuracy")) in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet56"], "none of this task's"),
        (["--size", "8", "--workers", "-1"], "--size is 8; give 32 or more pixels"),
        (["--least-area", "0"], "--least-area is 0.0; give more than 0"),
        (["--rand-augment", "40"], "--rand-augment is 40; give 0 … 30"),
        (["--no-verify", "--skip-corrupt"], "leave --no-verify out"),
        (["--data", "gone"], "there is no folder"),
    ],
)
def test_bad_values_are_refused(
    refused: Callable[..., str], main: Main, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in refused(main, ["--output", str(tmp_path / "out"), *arguments])
