"""Labelled point clouds in memory, and the HDF5 file that holds them on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

SPLITS = ("train", "test")


@dataclass(frozen=True)
class PointClouds:
    """One split of a data set, in memory: S clouds of P points each.

    P is the *pool*: a loader draws the points of a batch from it. Clouds are centred and lie in the
    unit sphere.

    Args:
        points: (S, P, 3) floating point.
        labels: (S,) int64, indices into ``classes``.
        names: S names, for messages and pictures.
        classes: class names, in the order of the labels.
        normals: (S, P, 3) unit normals of the faces the points lie on, or None.

    Raises:
        ValueError: the parts do not fit together.
    """

    points: Tensor
    labels: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]
    normals: Tensor | None = None

    def __post_init__(self) -> None:
        size = len(self.names)
        if self.points.ndim != 3 or self.points.shape[0] != size or self.points.shape[2] != 3:
            raise ValueError(
                f"points must be ({size}, P, 3), one cloud a name; got {tuple(self.points.shape)}"
            )
        if self.labels.shape != (size,):
            raise ValueError(f"labels must be ({size},), one a name; got {tuple(self.labels.shape)}")
        if size and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise ValueError(
                f"labels must lie in 0 … {len(self.classes) - 1}, one a class; "
                f"got {int(self.labels.min())} … {int(self.labels.max())}"
            )
        if self.normals is not None and self.normals.shape != self.points.shape:
            raise ValueError(
                f"normals must be as the points, {tuple(self.points.shape)}; got {tuple(self.normals.shape)}"
            )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def strata(self) -> Tensor:
        """The labels: a validation split takes its share of each class."""
        return self.labels

    def subset(self, indices: Tensor) -> PointClouds:
        """Return the clouds at ``indices`` (int64), in that order."""
        return PointClouds(
            points=self.points[indices],
            labels=self.labels[indices],
            names=tuple(self.names[i] for i in indices.tolist()),
            classes=self.classes,
            normals=None if self.normals is None else self.normals[indices],
        )


def read_clouds(path: str | os.PathLike[str], split: str, *, normals: bool = False) -> PointClouds:
    """Read one split of an HDF5 point-cloud file.

    Layout: groups ``train`` and ``test``, each with ``points`` (S, P, 3) float, ``labels`` (S,) integer,
    ``names`` (S,) bytes and, optionally, ``normals`` (S, P, 3); the root attribute ``classes`` names the
    classes. The file is open only while this function reads, so no handle outlives a fork.

    Args:
        path: the file.
        split: ``"train"`` or ``"test"``.
        normals: read the normals too.

    Returns:
        The clouds, in float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no HDF5 file, a part is missing, or its values are not centred clouds in the unit
            sphere.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} cannot be opened as HDF5 ({error}); delete it or fetch it again") from error
    with file:
        if "classes" not in file.attrs:
            raise ValueError(f"{path} has no root attribute 'classes' with the class names, in label order")
        classes = tuple(map(_text, np.ravel(np.asarray(file.attrs["classes"]))))
        wanted = ("points", "labels", "names", *(("normals",) if normals else ()))
        arrays = _arrays(file, [f"{split}/{name}" for name in wanted], path)
    try:
        clouds = PointClouds(
            points=torch.from_numpy(arrays[0].astype(np.float32)),
            labels=torch.from_numpy(arrays[1].astype(np.int64)),
            names=tuple(map(_text, arrays[2])),
            classes=classes,
            normals=torch.from_numpy(arrays[3].astype(np.float32)) if normals else None,
        )
    except ValueError as error:
        raise ValueError(f"{path}, group {split!r}: {error}") from error
    _check_normalised(clouds, f"{path}, group {split!r}")
    return clouds


def write_clouds(
    path: Path, train: PointClouds, test: PointClouds, attributes: Mapping[str, object] | None = None
) -> None:
    """Write both splits to an HDF5 file that :func:`read_clouds` reads, in float16.

    Float16 keeps 3 to 4 digits: within the unit sphere at most 0.00025 is lost per coordinate. The file is
    written beside ``path``, then renamed, so that ``path`` is always whole; equal clouds give equal bytes.

    Args:
        path: the file to write; it is replaced if it exists.
        train: training clouds.
        test: test clouds, of the same classes.
        attributes: further root attributes, for the reader's information.

    Raises:
        ValueError: the splits disagree on their classes.
    """
    if train.classes != test.classes:
        raise ValueError(f"the splits must share their classes; got {train.classes} and {test.classes}")
    temporary = path.with_name(path.name + ".tmp")
    with h5py.File(temporary, "w", libver=("v108", "v108")) as file:
        file.attrs["classes"] = list(train.classes)
        for name, value in (attributes or {}).items():
            file.attrs[name] = value
        for split, clouds in zip(SPLITS, (train, test), strict=True):
            group = file.create_group(split, track_times=False)
            arrays = {
                "points": clouds.points.half().numpy(),
                "labels": clouds.labels.numpy(),
                "names": np.array([name.encode() for name in clouds.names], dtype=bytes),
            }
            if clouds.normals is not None:
                arrays["normals"] = clouds.normals.half().numpy()
            for name, array in arrays.items():
                group.create_dataset(name, data=array, track_times=False)
        file.flush()
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def _arrays(file: h5py.File, names: list[str], path: Path) -> list[np.ndarray]:
    found = {name: part for name in names if isinstance(part := file.get(name), h5py.Dataset)}
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it must hold {', '.join(names)}")
    return [np.asarray(part[()]) for part in found.values()]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_normalised(clouds: PointClouds, where: str) -> None:
    if not len(clouds):
        raise ValueError(f"{where}: there is no cloud in it")
    radius = clouds.points.square().sum(-1).amax(-1).sqrt()
    worst = int(radius.nan_to_num(nan=torch.inf).argmax())
    if not radius[worst] <= 1.01:  # false for NaN too; float16 rounds a radius of 1 up to 1.001
        raise ValueError(
            f"{where}: cloud {clouds.names[worst]!r} reaches radius {float(radius[worst]):g}, "
            "but clouds must lie in the unit sphere; pass each through mgic_geo.datasets.unit_sphere "
            "before writing the file"
        )
