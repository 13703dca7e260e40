from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from mgic_geo import from_pretrained
from mgic_geo.training import ModelCard, save_model

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


@pytest.mark.parametrize("count", [5, 32, 200])
@pytest.mark.parametrize("suffix", ["npy", "xyz", "ply"])
def test_clouds_of_any_size(
    main: Main,
    tmp_path: Path,
    points: np.ndarray,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
    count: int,
) -> None:
    file, cloud = tmp_path / f"cloud.{suffix}", points[:count]
    if suffix == "npy":
        np.save(file, np.hstack([cloud, cloud]))  # further columns, such as normals, are left out
    elif suffix == "xyz":
        np.savetxt(file, cloud)
    else:
        trimesh.PointCloud(cloud).export(file)
    main([str(file)])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_size_and_place_do_not_matter(
    main: Main, tmp_path: Path, points: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", points)
    np.save(tmp_path / "b.npy", points * 100 + 7)
    main([str(tmp_path / "a.npy"), str(tmp_path / "b.npy")])
    _, a, b = capsys.readouterr().out.splitlines()
    assert a.split()[1:] == b.split()[1:]


def test_bad_files_are_named_and_the_rest_goes_through(
    main: Main, tmp_path: Path, points: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "good.npy", points)
    np.save(tmp_path / "few.npy", points[:3])
    np.save(tmp_path / "flat.npy", points[:, :2])
    np.save(tmp_path / "same.npy", np.ones((9, 3)))
    np.save(tmp_path / "nan.npy", np.where(np.arange(600).reshape(200, 3) == 0, np.nan, points))
    with (tmp_path / "archive.npy").open("wb") as file:
        np.savez(file, points=points)
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "empty.xyz").write_text("\n")
    (tmp_path / "words.xyz").write_text("one two three\n")
    (tmp_path / "cut.ply").write_text("ply\nelement vertex 9")
    (tmp_path / "cut.off").write_text("OFF\n3 1 0\n0 0 0\n")
    (tmp_path / "scene.glb").write_text("x")
    reasons = {
        "few.npy": "3 points, but the model's k-NN graphs need 4",
        "flat.npy": "rows that begin with x, y, z",
        "same.npy": "lie at one place",
        "nan.npy": "NaN or infinity",
        "pickle.npy": "cannot be read as .npy",
        "archive.npy": "save the one array of points with np.save",
        "empty.xyz": "the file is empty",
        "words.xyz": "cannot be read as .xyz",
        "cut.ply": "cannot be parsed",
        "cut.off": "cannot be parsed",
        "scene.glb": "convert it to one of .off .obj .ply .stl .npy .xyz",
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
        (main, [], "give the files to classify"),
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
