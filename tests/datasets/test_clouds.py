import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mgic_geo.datasets import PointClouds, read_clouds, split_validation, write_clouds


def clouds(count=6, pool=8, classes=("a", "b"), normals=True):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, pool, 3, generator=generator)
    points = points - points.mean(1, keepdim=True)
    points = points / points.norm(dim=-1).amax(1).view(-1, 1, 1)
    return PointClouds(
        points=points.half().float(),
        labels=torch.arange(count) % len(classes),
        names=tuple(f"cloud_{i}" for i in range(count)),
        classes=classes,
        normals=points.half().float() if normals else None,
    )


def fill(dataset, value):
    dataset[...] = value


def replace(file, name, values):
    del file[name]
    file[name] = values


def test_round_trip(tmp_path):
    train, test = clouds(), clouds(3, normals=False)
    write_clouds(tmp_path / "c.h5", train, test)
    again = read_clouds(tmp_path / "c.h5", "train", normals=True)
    assert again.points.dtype == torch.float32
    assert again.labels.dtype == torch.int64
    assert torch.equal(again.points, train.points)
    assert torch.equal(again.normals, train.normals)
    assert torch.equal(again.labels, train.labels)
    assert (again.names, again.classes) == (train.names, train.classes)
    assert read_clouds(tmp_path / "c.h5", "train").normals is None
    assert len(read_clouds(tmp_path / "c.h5", "test")) == 3
    assert list(tmp_path.iterdir()) == [tmp_path / "c.h5"]


def test_reads_files_of_others(tmp_path):
    """Other integer and float types, byte strings of fixed length, one split only."""
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.attrs["classes"] = np.array([b"chair", b"desk"])
        group = file.create_group("train")
        group["points"] = np.tile([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], (2, 1, 1))
        group["labels"] = np.array([0, 1], np.uint8)
        group["names"] = np.array([b"x", b"y"])
    read = read_clouds(tmp_path / "c.h5", "train")
    assert read.classes == ("chair", "desk")
    assert read.names == ("x", "y")
    assert read.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.attrs.__delitem__("classes"), "no root attribute 'classes'"),
        (lambda file: file.__delitem__("train"), "lacks train/points, train/labels, train/names"),
        (lambda file: file["train"].__delitem__("names"), "lacks train/names;"),
        (lambda file: file["train"].__delitem__("normals"), "lacks train/normals;"),
        (lambda file: fill(file["train/labels"], 2), "labels must lie in 0 … 1"),
        (
            lambda file: file["train/points"].write_direct(np.full((6, 8, 3), 9.0, "f2")),
            "'cloud_0' has its mean at distance 15.* and reaches radius 15",
        ),
        (
            lambda file: file["train/points"].write_direct(np.full((6, 8, 3), 0.5, "f2")),
            "'cloud_0' has its mean at distance 0.8.* and reaches radius 0.8",
        ),
        (
            lambda file: file["train/points"].write_direct(np.full((6, 8, 3), np.nan, "f2")),
            "'cloud_0' .* reaches radius nan",
        ),
        (
            lambda file: file["train/points"].write_direct(np.zeros((6, 8, 3), "f2")),
            "reaches radius 0, but clouds must be centred and just fit into the unit sphere",
        ),
        (lambda file: replace(file, "train/labels", np.full(6, 0.5)), "labels must be integers, got float64"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message):
    write_clouds(tmp_path / "c.h5", clouds(), clouds())
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        damage(file)
    with pytest.raises(ValueError, match=message) as caught:
        read_clouds(tmp_path / "c.h5", "train", normals=True)
    assert "c.h5" in str(caught.value)


def test_no_hdf5_file(tmp_path):
    (tmp_path / "c.h5").write_text("not HDF5")
    with pytest.raises(ValueError, match="cannot be opened as HDF5"):
        read_clouds(tmp_path / "c.h5", "train")
    with pytest.raises(FileNotFoundError, match=r"no file .*d\.h5"):
        read_clouds(tmp_path / "d.h5", "train")


def test_splits_share_classes(tmp_path):
    with pytest.raises(ValueError, match="share their classes"):
        write_clouds(tmp_path / "c.h5", clouds(), clouds(classes=("a", "c")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(6, 8)}, r"points must be \(6, P, 3\)"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, r"labels must be \(6,\)"),
        ({"labels": torch.full((6,), 2)}, r"labels must lie in 0 … 1"),
        ({"normals": torch.zeros(6, 7, 3)}, "normals must be as the points"),
    ],
)
def test_parts_must_fit(change, message):
    parts = {name: getattr(clouds(), name) for name in ("points", "labels", "names", "classes", "normals")}
    with pytest.raises(ValueError, match=message):
        PointClouds(**(parts | change))


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 9),
)
def test_validation_is_a_stratified_partition(sizes, fraction, seed):
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    train = PointClouds(
        torch.zeros(len(labels), 1, 3),
        labels,
        tuple(map(str, range(len(labels)))),
        tuple(map(str, range(len(sizes)))),
    )
    if max(sizes) == 1:
        with pytest.raises(ValueError, match="no class has two"):
            split_validation(train, fraction, seed)
        return
    kept, drawn = split_validation(train, fraction, seed)
    assert sorted(kept.names + drawn.names) == sorted(train.names)
    assert not set(kept.names) & set(drawn.names)
    for label, size in enumerate(sizes):
        count = int((drawn.labels == label).sum())
        assert count == min(max(1, round(fraction * size)), size - 1)
    again = split_validation(train, fraction, seed)
    assert again[1].names == drawn.names


def test_validation_depends_on_the_seed():
    train = clouds(60)
    assert split_validation(train, 0.2, 0)[1].names != split_validation(train, 0.2, 1)[1].names


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 20])
def test_validation_fraction_is_checked(fraction):
    with pytest.raises(ValueError, match=f"strictly between 0 and 1, such as 0.1; got {fraction}"):
        split_validation(clouds(), fraction)
