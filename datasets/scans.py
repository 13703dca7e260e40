"""Points of one file: a mesh, sampled by area, or a cloud."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from .files import known_suffix
from .meshes import parse_mesh, sample_mesh, unit_sphere

POOL = 4096  # points that load_clouds samples from each mesh
MESHES, CLOUDS = (".off", ".obj", ".ply", ".stl"), (".npy", ".xyz")


def read_points(path: Path, count: int, least: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The mesh or cloud in a file as a model takes it.

    Args:
        path: The file; its suffix tells the format.
        count: Points to return, N.
        least: Points a cloud must have.
        rng: The source of randomness.

    Returns:
        (N, 3) points, centred and in the unit sphere. A mesh is sampled by area; a cloud of more points loses
        some at random, one of fewer has some repeated.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If its format is not known, or what it holds is no mesh or cloud that a model could take.
    """
    suffix = known_suffix(path, MESHES + CLOUDS)
    data = path.read_bytes()
    if not data.strip():
        raise ValueError("the file is empty; fetch or export it again")
    if suffix in MESHES and not (suffix == ".ply" and _is_cloud(data)):
        # More than needed, as the cache has: the cloud is centred and scaled by all of them.
        return sample_mesh(parse_mesh(data, path.name), max(count, POOL), rng)[0][:count]
    points = _read_cloud(data, suffix)
    if len(points) < least:
        raise ValueError(f"it holds {len(points)} points, but the model's k-NN graphs need {least} or more")
    order = rng.permutation(len(points))[:count]
    repeated = rng.integers(len(points), size=count - len(order))
    return unit_sphere(points[np.concatenate([order, repeated])])


def _read_cloud(data: bytes, suffix: str) -> NDArray[np.floating]:
    file = io.BytesIO(data)
    try:
        if suffix == ".ply":
            points = np.asarray(trimesh.load(file, file_type="ply", process=False).vertices)  # type: ignore
        elif suffix == ".npy":
            points = np.load(file, allow_pickle=False)
        else:
            text = file.read().decode()
            points = np.loadtxt([line for line in text.splitlines() if line.split("#")[0].strip()], ndmin=2)
    except Exception as error:  # parsers raise whatever they stumble over in a broken file
        hint = "columns are separated by blanks, without a header" if suffix == ".xyz" else "export it again"
        raise ValueError(f"it cannot be read as {suffix} ({error}); {hint}") from error
    if not isinstance(points, np.ndarray):  # np.load opens an archive of arrays, too
        raise ValueError("it is an archive of arrays; save the one array of points with np.save")
    if points.ndim != 2 or points.shape[1] < 3 or not np.issubdtype(points.dtype, np.number):
        raise ValueError(f"a cloud needs rows that begin with x, y, z; this is {points.dtype} {points.shape}")
    points = points[:, :3]
    if not np.isfinite(points).all():
        raise ValueError("it holds NaN or infinity; remove these points")
    return points


def _is_cloud(ply: bytes) -> bool:
    header, end, _ = ply.partition(b"end_header")
    faces = re.search(rb"element face (\d+)", header)
    return bool(end) and (faces is None or int(faces[1]) == 0)
