"""Files of a mesh or a cloud, as a model takes them."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from mgic_geo.datasets import read_points
from mgic_geo.datasets.scans import POOL

POINTS = np.random.default_rng(0).normal(size=(200, 3))


def read(path: Path, count: int = 32) -> np.ndarray:
    return read_points(path, count, 4, np.random.default_rng(0))


@pytest.mark.parametrize("suffix", ["off", "obj", "ply", "stl", "OFF"])
def test_meshes_are_sampled_on_their_surface(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"mesh.{suffix}"
    trimesh.creation.box((2, 2, 2)).export(file, file_type=suffix.lower())
    points = read(file, 500)
    assert points.shape == (500, 3)
    assert points.dtype == np.float32
    sides = np.abs(points).max(1)  # all points of a centred cube's surface are as far off, in this norm
    np.testing.assert_allclose(sides, sides.mean(), rtol=0.1)
    assert np.linalg.norm(points, axis=1).max() <= 1 + 1e-6


def test_few_points_of_a_mesh_are_the_first_of_many(tmp_path: Path) -> None:
    """Centred and scaled by as many as the cache has."""
    trimesh.creation.box().export(tmp_path / "box.off")
    assert np.array_equal(read(tmp_path / "box.off", 8), read(tmp_path / "box.off", POOL)[:8])


@pytest.mark.parametrize("count", [5, 32, 200])
@pytest.mark.parametrize("suffix", ["npy", "xyz", "ply"])
def test_clouds_of_any_size(tmp_path: Path, suffix: str, count: int) -> None:
    file, cloud = tmp_path / f"cloud.{suffix}", POINTS[:count]
    if suffix == "npy":
        np.save(file, np.hstack([cloud, cloud]))  # further columns, such as normals, are left out
    elif suffix == "xyz":
        np.savetxt(file, cloud)
    else:
        trimesh.PointCloud(cloud).export(file)
    points = read(file)
    assert points.shape == (32, 3)
    distinct = np.unique(points, axis=0)
    assert len(distinct) == min(count, 32)  # all are taken before any is repeated
    np.testing.assert_allclose(np.linalg.norm(points, axis=1).max(), 1, rtol=1e-6)


def test_bad_files_and_what_to_do(tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", POINTS[:3])
    np.save(tmp_path / "flat.npy", POINTS[:, :2])
    np.save(tmp_path / "same.npy", np.ones((9, 3)))
    np.save(tmp_path / "nan.npy", np.where(np.arange(600).reshape(200, 3) == 0, np.nan, POINTS))
    with (tmp_path / "archive.npy").open("wb") as file:
        np.savez(file, points=POINTS)
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
        "scene.glb": "files of type .glb are not read; convert it to one of .off .obj .ply .stl .npy .xyz",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=reason.replace("(", r"\(")):
            read(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "gone.npy")
