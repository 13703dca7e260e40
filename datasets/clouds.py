"""Labelled point clouds in memory, and the HDF5 file that holds them on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .hdf5 import as_bytes, opened_hdf5, read_arrays, read_text, write_hdf5
from .sources import SPLITS


@dataclass(frozen=True)
class PointClouds:
    """One split of a data set, in memory: S clouds of P points each.

    P is the *pool*: a loader draws the points of a batch from it. Clouds are centred and lie in the
    unit sphere.

    Args:
        points: (S, P, 3) floating point.
        labels: (S,) int64, indices into ``classes``.
        names: S names, for messages and pictures.
        classes: Class names, in the order of the labels.
        normals: (S, P, 3) unit normals of the faces the points lie on, or None.

    Raises:
        ValueError: If the parts do not fit together.
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
        """The clouds at ``indices`` (int64), in that order."""
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
    classes. The points of a cloud stand in random order, since any first N of them stand for it. The file is
    open only while this function reads, so no handle outlives a fork.

    Args:
        path: The file.
        split: ``"train"`` or ``"test"``.
        normals: Read the normals too.

    Returns:
        The clouds, in float32.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no HDF5 file, a part is missing, or its values are not centred clouds in the unit
            sphere.
    """
    path = Path(path)
    with opened_hdf5(path) as file:
        if "classes" not in file.attrs:
            raise ValueError(f"{path} has no root attribute 'classes' with the class names, in label order")
        classes = read_text(file.attrs["classes"])
        wanted = ("points", "labels", "names", *(("normals",) if normals else ()))
        arrays = read_arrays(file, [f"{split}/{name}" for name in wanted])
    if not np.issubdtype(arrays[1].dtype, np.integer):
        raise ValueError(f"{path}, group {split!r}: labels must be integers, got {arrays[1].dtype}")
    try:
        clouds = PointClouds(
            points=torch.from_numpy(arrays[0].astype(np.float32)),
            labels=torch.from_numpy(arrays[1].astype(np.int64)),
            names=read_text(arrays[2]),
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
        path: The file to write; it is replaced if it exists.
        train: Training clouds.
        test: Test clouds, of the same classes.
        attributes: Further root attributes, for the reader's information.

    Raises:
        ValueError: If the splits disagree on their classes.
    """
    if train.classes != test.classes:
        raise ValueError(f"the splits must share their classes; got {train.classes} and {test.classes}")
    groups = {}
    for split, clouds in zip(SPLITS, (train, test), strict=True):
        groups[split] = {
            "points": clouds.points.half().numpy(),
            "labels": clouds.labels.numpy(),
            "names": as_bytes(clouds.names),
        }
        if clouds.normals is not None:
            groups[split]["normals"] = clouds.normals.half().numpy()
    write_hdf5(path, groups, {"classes": list(train.classes), **(attributes or {})})


def _check_normalised(clouds: PointClouds, where: str) -> None:
    if not len(clouds):
        raise ValueError(f"{where}: there is no cloud in it")
    # Loose: a pool may be centred by its bounding box, or as part of a larger one; float16 rounds to 1.001.
    offset = clouds.points.mean(1).norm(dim=-1)
    radius = clouds.points.square().sum(-1).amax(-1).sqrt()
    good = (offset <= 0.3) & (radius >= 0.5) & (radius <= 1.01)  # false for NaN too
    if not good.all():
        bad = int((~good).nonzero()[0])
        raise ValueError(
            f"{where}: cloud {clouds.names[bad]!r} has its mean at distance {float(offset[bad]):g} from the "
            f"origin and reaches radius {float(radius[bad]):g}, but clouds must be centred and just fit into "
            "the unit sphere; pass each through mgic_geo.datasets.unit_sphere before writing the file"
        )
