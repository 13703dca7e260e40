import hashlib
import os
import zipfile
from pathlib import Path

import pytest
import torch

from mgic_geo.datasets import (
    CorruptMeshError,
    DownloadError,
    PointClouds,
    load_clouds,
    modelnet,
    write_clouds,
)


def zipped(meshes, path):
    with zipfile.ZipFile(path, "w") as archive:
        for mesh in sorted(meshes.rglob("*.off")):
            archive.write(mesh, mesh.relative_to(meshes.parent))
    return path


def equal(a: PointClouds, b: PointClouds) -> bool:
    same = torch.equal(a.points, b.points) and torch.equal(a.labels, b.labels)
    return same and (a.names, a.classes) == (b.names, b.classes)


def test_folder_zip_and_cache_file_give_the_same_clouds(meshes, tmp_path):
    cache = tmp_path / "cache"
    folder = load_clouds(meshes, cache=cache, pool=16)
    archive = load_clouds(str(zipped(meshes, tmp_path / "t.zip")), cache=cache, pool=16)
    (file,) = cache.glob("tiny2-*.h5")
    direct = load_clouds(file)
    for split in range(2):
        assert equal(folder[split], archive[split])
        assert equal(folder[split], direct[split])
    assert len(folder[0]) == 6
    assert len(folder[1]) == 4
    assert folder[0].normals is None
    assert load_clouds(file, normals=True)[1].normals.shape == (4, 16, 3)


def test_points_are_normalised(meshes, tmp_path):
    train, _ = load_clouds(meshes, cache=tmp_path, pool=64)
    assert train.points.dtype == torch.float32
    assert train.points.mean(1).abs().max() < 1e-3
    assert torch.allclose(train.points.norm(dim=-1).amax(1), torch.ones(6), atol=1e-3)


def test_a_stale_cache_is_never_read(meshes, tmp_path):
    first, _ = load_clouds(meshes, cache=tmp_path, pool=16)
    assert equal(load_clouds(meshes, cache=tmp_path, pool=16)[0], first)
    assert len(list(tmp_path.glob("*.h5"))) == 1
    assert not equal(load_clouds(meshes, cache=tmp_path, pool=16, seed=1)[0], first)
    assert load_clouds(meshes, cache=tmp_path, pool=17)[0].points.shape[1] == 17
    (meshes / "box/train/box_0000.off").unlink()
    assert len(load_clouds(meshes, cache=tmp_path, pool=16)[0]) == 5
    assert len(list(tmp_path.glob("*.h5"))) == 4


def test_default_cache_folder(meshes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MGIC_DATA", raising=False)
    load_clouds(meshes, pool=4)
    assert list(Path("data").glob("*.h5"))
    monkeypatch.setenv("MGIC_DATA", "elsewhere")
    load_clouds(meshes, pool=4)
    assert list(Path("elsewhere").glob("*.h5"))


def test_corrupt_meshes_stop_unless_skipped(meshes, tmp_path):
    (meshes / "box/train/box_0001.off").write_text("nothing")
    for skip in (False, True, False):
        if skip:
            with pytest.warns(UserWarning, match=r"left out as asked: 1 mesh.*\n  box/train/box_0001\.off"):
                train, _ = load_clouds(meshes, cache=tmp_path, pool=4, skip_corrupt=True)
            assert len(train) == 5
        else:
            with pytest.raises(CorruptMeshError, match=r"box/train/box_0001\.off"):
                load_clouds(meshes, cache=tmp_path, pool=4)


@pytest.fixture
def official(meshes, tmp_path, monkeypatch):
    """A "modelnet10" whose archive is small, and would come from a closed port of this machine."""
    data = zipped(meshes, tmp_path / "t.zip").read_bytes()
    archive = modelnet.Archive("http://127.0.0.1:9/ModelNet10.zip", hashlib.md5(data).hexdigest())
    monkeypatch.setitem(modelnet.ARCHIVES, "modelnet10", archive)
    return data


def test_official_archive(official, tmp_path):
    cache = tmp_path / "cache"
    with pytest.raises(DownloadError, match=r"put it at .*cache.*ModelNet10\.zip"):
        load_clouds("modelnet10", cache=cache, pool=4)
    (cache / "ModelNet10.zip").write_bytes(official)
    first, _ = load_clouds("modelnet10", cache=cache, pool=4)
    assert first.classes == ("box", "cone")
    os.remove(cache / "ModelNet10.zip")
    assert equal(load_clouds("modelnet10", cache=cache, pool=4)[0], first)  # the samples are enough


def test_official_archives_are_secure():
    assert set(modelnet.ARCHIVES) == {"modelnet10", "modelnet40"}
    assert modelnet.ARCHIVES["modelnet10"].md5 == "18f4c73879802c35aa6178f8e773a99e"
    assert all(archive.url.startswith("https://") for archive in modelnet.ARCHIVES.values())


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ("modelnet11", {}, FileNotFoundError, "known: shapes, modelnet10, modelnet40"),
        ("missing.h5", {}, FileNotFoundError, "missing.h5"),
        ("shapes", {"pool": 0}, ValueError, "pool must be 1 point or more; got 0"),
        ("shapes", {"seed": -1}, ValueError, "seed must be 0 or more; got -1"),
    ],
)
def test_wrong_values(data, options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        load_clouds(data, **options)
    assert list(tmp_path.iterdir()) == []


def test_clouds_of_others(tmp_path):
    points = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]).repeat(2, 1, 1)
    clouds = PointClouds(points, torch.tensor([0, 1]), ("a", "b"), ("x", "y"))
    write_clouds(tmp_path / "c.hdf5", clouds, clouds)
    assert equal(load_clouds(tmp_path / "c.hdf5")[0], clouds)
