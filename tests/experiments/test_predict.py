import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from pictures import read_pixels, write_image

from mgic_geo import from_pretrained
from mgic_geo.datasets import palette_of
from mgic_geo.model_file import Card, ImageCard, ModelCard, save_model

Main = Callable[[list[str]], None]


@pytest.fixture
def main(script: Callable[[str], Main], tmp_path: Path) -> Main:
    """The script with an untrained model of three classes."""
    torch.manual_seed(0)
    card = ModelCard("mgic_dgcnn", {"k": 4, "dropout": 0.2}, ("ball", "disc", "needle"), 32)
    save_model(tmp_path / "model.safetensors", card.build(), card)
    return lambda arguments: script("predict")(["--model", str(tmp_path), *arguments])


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(200, 3))


@pytest.mark.parametrize("suffix", ["off", "obj", "ply", "stl"])
def test_meshes(main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    trimesh.creation.icosphere().export(file := tmp_path / f"mesh.{suffix}")
    main([str(file)])
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["file", "class", "confidence", "second", "choice"]
    name, first, share, second, rest = row.split()
    assert name == str(file)
    assert {first, second} < {"ball", "disc", "needle"}
    assert float(share[:-1]) >= float(rest[:-1]) >= 0
    assert head.index("class") == row.index(first)


def test_bad_files_are_named_and_the_rest_goes_through(
    main: Main, tmp_path: Path, points: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "good.npy", points)
    np.save(tmp_path / "few.npy", points[:3])
    (tmp_path / "cut.off").write_text("OFF\n3 1 0\n0 0 0\n")
    reasons = {
        "few.npy": "3 points, but the model's k-NN graphs need 4",
        "cut.off": "cannot be parsed",
        "photo.png": "convert it to one of .off .obj .ply .stl .npy .xyz",
        "gone.npy": "No such file",
    }
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / name) for name in (*reasons, "good.npy")])
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    for (name, reason), line in zip(reasons.items(), err.splitlines(), strict=True):
        assert line.startswith(f"error: {tmp_path / name}: ")
        assert reason in line


def test_a_missing_model_and_no_files(
    script: Callable[[str], Main], main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, arguments, message in (
        (script("predict"), ["--model", str(tmp_path / "gone"), "x.npy"], "there is no model at"),
        (main, [], "give the files to look at"),
        (main, ["x.npy", "--seed", "-1"], "--seed is -1; give 0 or more"),
    ):
        with pytest.raises(SystemExit) as caught:
            run(arguments)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_the_model_that_comes_with_the_package(
    script: Callable[[str], Main], tmp_path: Path, points: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "cloud.npy", points)
    script("predict")(["--model", "mgic_dgcnn_modelnet10", str(tmp_path / "cloud.npy")])
    name, first, *_ = capsys.readouterr().out.splitlines()[1].split()
    assert name == str(tmp_path / "cloud.npy")
    assert first in from_pretrained("mgic_dgcnn_modelnet10").card.classes


PLAIN = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
PIXELS = np.random.default_rng(1).integers(0, 256, (48, 80, 3)).astype(np.uint8)


def test_images_are_classified(
    script: Callable[[str], Main], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    card = ImageCard("resnet56", {}, ("cat", "dog", "owl"), *PLAIN, (32, 32))
    save_model(tmp_path / "model.safetensors", card.build(), card)
    write_image(tmp_path / "photo.png", PIXELS)
    write_image(tmp_path / "grey.png", PIXELS[:32, :32, 0])
    files = [str(tmp_path / name) for name in ("photo.png", "grey.png", "chair.off")]
    with pytest.raises(SystemExit):
        script("predict")(["--model", str(tmp_path), "--output", str(tmp_path / "none"), *files])
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head.split() == ["file", "class", "confidence", "second", "choice"]
    assert [row.split()[0] for row in rows] == files[:2]
    assert all({row.split()[1], row.split()[3]} < set(card.classes) for row in rows)
    assert f"error: {files[2]}: files of type .off are not read" in err
    assert not (tmp_path / "none").exists()


def test_masks_need_a_folder(
    script: Callable[[str], Main], tmp_path: Path, refused: Callable[[Main, list[str]], str]
) -> None:
    card = ImageCard("lraspp_mobilenetv3_small", {}, ("sky", "road"), *PLAIN, (48, 80))
    save_model(tmp_path / "model.safetensors", card.build(), card)
    (taken := tmp_path / "taken").touch()
    message = refused(script("predict"), ["--model", str(tmp_path), "--output", str(taken), "a.png"])
    assert f"{taken} is a file, not a folder" in message


def test_a_name_that_is_not_utf_8_is_printed_all_the_same(
    main: Main, tmp_path: Path, points: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "cloud.npy", points)
    (file := tmp_path / os.fsdecode(b"\xe4.npy")).write_bytes((tmp_path / "cloud.npy").read_bytes())
    main([str(file)])
    assert "\ufffd.npy" in capsys.readouterr().out


def test_images_are_segmented(
    script: Callable[[str], Main], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    card = ImageCard("lraspp_mobilenetv3_small", {}, ("sky", "road", "car"), *PLAIN, (48, 80))
    save_model(tmp_path / "model.safetensors", card.build(), card)
    write_image(tmp_path / "a.png", PIXELS)
    write_image(tmp_path / "b.png", PIXELS[:40, ::2])
    write_image(tmp_path / "other" / "a.png", PIXELS)
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    files = [str(tmp_path / name) for name in ("a.png", "b.png", "other/a.png", "cut.png")]
    with pytest.raises(SystemExit) as caught:
        script("predict")(["--model", str(tmp_path), "--output", str(tmp_path / "masks"), *files])
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert f"error: {files[2]}: its mask would replace that of {files[0]}" in err
    assert f"error: {files[3]}: cannot be decoded" in err

    masks = sorted(file.name for file in (tmp_path / "masks").iterdir())
    assert masks == ["a-mask.png", "a-overlay.png", "b-mask.png", "b-overlay.png"]
    head, *rows, _, last = out.splitlines()
    assert head.startswith("file ")
    assert last == f"Masks and overlays are in {tmp_path / 'masks'}"
    for name, row, (height, width) in zip(("a", "b"), rows, ((48, 80), (40, 40)), strict=True):
        mask = read_pixels(tmp_path / "masks" / f"{name}-mask.png")
        assert mask.shape == (height, width)
        counts = mask.flatten().bincount(minlength=3)
        listed = row.split(maxsplit=1)[1].split(", ")
        assert listed == [
            f"{card.classes[i]} {counts[i] / counts.sum():.1%}"
            for i in counts.argsort(descending=True)
            if counts[i]
        ]
        overlay = read_pixels(tmp_path / "masks" / f"{name}-overlay.png")
        pixels = read_pixels(tmp_path / f"{name}.png").float().mean(-1, keepdim=True)
        colours = torch.tensor(palette_of(card.classes))[mask.long()]
        torch.testing.assert_close(overlay.float(), 0.6 * colours + 0.4 * pixels, rtol=0, atol=0.51)


def test_models_of_unknown_input_are_refused(
    script: Callable[[str], Main], refused: Callable[[Main, list[str]], str], tmp_path: Path
) -> None:
    card = Card("mgic_dgcnn", {"k": 4}, ("a", "b"))
    save_model(tmp_path / "model.safetensors", card.build(), card)
    message = refused(script("predict"), ["--model", str(tmp_path), "x.npy"])
    assert "does not say what its input is like" in message
