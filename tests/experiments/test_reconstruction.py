"""Section 5.1 on a few generated images: two steps, everything written, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pictures import write_image

from mgic_geo.model_file import ImageCard, save_model

Main = Callable[[list[str]], None]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(8):
        write_image(folder / f"{number}.png", rng.integers(0, 256, (16, 16, 3)).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    card = ImageCard("resnet56", {"depths": [1, 1, 1]}, ("a", "b"), (0.5,) * 3, (0.25,) * 3, (16, 16))
    path = tmp_path_factory.mktemp("network") / "model.safetensors"
    save_model(path, card.build(), card)
    return path


@pytest.fixture
def main(script: Callable[[str], Main], images: Path, network: Path) -> Main:
    run = script("reconstruction")
    fixed = ["--data", str(images), "--model", str(network), "--images", "8", "--accelerator", "cpu"]
    return lambda arguments: run([*fixed, *arguments])


def test_two_steps_end_with_everything_written(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--steps", "2", "--output", str(tmp_path)])
    out = capsys.readouterr().out
    assert "layer: layer3 (the first part with at least 64 channels; the first convolution has 16)" in out
    assert "Errors are of 2 images; the transfers learned from 6 others." in out
    assert "s_g = 32 has not reached the best code; more --steps may help." in out
    text = (tmp_path / "table.md").read_text()
    assert text.strip() in out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[:6]]
    assert [row[-2:] for row in rows[2:]] == [["3,328", "11"], ["1,792", "13"], ["896", "17"], ["448", "24"]]
    assert {len(line) for line in text.splitlines()[:6]} == {len(text.splitlines()[0])}
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [result["parameters"] for result in results] == [3328, 1792, 896, 448]
    assert rows[2][1] == f"{1000 * results[0]['mse']:.4g}"
    assert all(result["mse"] > result["mse_of_best_code"] for result in results)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["group_sizes"] == [32, 16, 8, 4]
    assert (tmp_path / "figure2.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".*"))

    # Once more gives the same; other settings would replace it.
    before = (tmp_path / "results.json").read_bytes()
    main(["--steps", "2", "--output", str(tmp_path)])
    assert (tmp_path / "results.json").read_bytes() == before
    with pytest.raises(SystemExit):
        main(["--steps", "3", "--output", str(tmp_path)])
    assert "already holds a run with other settings" in capsys.readouterr().err


def test_a_narrow_layer_leaves_large_groups_out(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--layer", "conv1", "--after", "conv", "--steps", "400", "--output", str(tmp_path)])
    out = capsys.readouterr().out
    assert "layer: conv1 (as asked for): 16 channels of 16 × 16" in out
    assert "Left out, being above the layer's 16 channels: s_g = 32." in out
    assert "paper" not in out  # whose widths are others
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [result["group_size"] for result in results] == [16, 8, 4]
    assert results[0]["mse"] < results[1]["mse"] < results[2]["mse"]


def test_a_network_of_torchvision(
    script: Callable[[str], Main], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision import models

    torch.manual_seed(0)
    torch.save(models.get_model("squeezenet1_1", weights=None).state_dict(), tmp_path / "weights.pth")
    arguments = ["--torchvision", "squeezenet1_1", "--weights", str(tmp_path / "weights.pth"), "--steps", "2"]
    arguments += ["--data", str(images), "--images", "3", "--group-sizes", "4", "--accelerator", "cpu"]
    script("reconstruction")([*arguments, "--output", str(tmp_path / "out")])
    layer = "layer: features.0, features.1 (the first convolution): 64 channels of 111 × 111"
    assert layer in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "1", "--steps", "0"], "--images is 1; give 2 or more"),
        (["--images", "9"], "9 images were asked for, but there are 8"),
        (["--torchvision", "resnet50"], "--model and --torchvision name two networks"),
        (["--weights", "a.pth"], "--weights are those of --torchvision"),
        (["--group-sizes", "1", "4"], "a channel alone cannot be halved"),
        (["--group-sizes", "128"], "all are above the layer's 64 channels"),
        (["--coarse-size", "64"], "64 channels, which are not coarsened to --coarse-size 64"),
        (["--held-out", "1", "--lr", "0"], "--held-out is 1.0; give more than 0, under 1"),
        (["--layer", "layer9"], "--layer: no module 'layer9' gives feature maps; try layer"),
        (["--model", "gone"], "--model: there is no model at gone"),
        (["--data", "missing.zip"], "--data missing.zip: there is no file or folder missing.zip"),
    ],
)
def test_bad_values_are_refused(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--output", str(tmp_path / "out"), *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_mistyped_flag_does_not_lock_the_folder(main: Main, tmp_path: Path) -> None:
    output = ["--group-sizes", "4", "--steps", "2", "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        main([*output, "--model", "gone"])
    main(output)
    assert (tmp_path / "results.json").exists()
