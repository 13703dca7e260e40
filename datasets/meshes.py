"""Reading one mesh and sampling its surface."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import PurePath

import numpy as np
import trimesh
from numpy.typing import NDArray

from .off import read_triangles


class CorruptMeshError(ValueError):
    """Meshes that cannot be read or sampled; the message says why.

    Attributes:
        problems: Those of a data set, a line each, where the message names ten of many.
    """

    problems: tuple[str, ...] = ()


# What the parsers of trimesh raise on files they cannot make sense of.
_PARSER_ERRORS = (ValueError, TypeError, LookupError, NameError, AttributeError, ArithmeticError)


def parse_mesh(data: bytes, name: str) -> trimesh.Trimesh:
    """Parse the bytes of a mesh file exactly as written: no merging, no clean-up.

    Args:
        data: The file's content. OFF headers that run into the counts (``OFF490 518 0``), which ModelNet-40
            has many of, are read too.
        name: The file's name; its suffix tells the format (.off, .obj, .ply, .stl).

    Returns:
        The mesh, with at least one face of positive area.

    Raises:
        CorruptMeshError: If the file cannot be parsed, is cut short, or has no surface.
    """
    if not data.strip():
        raise CorruptMeshError("is empty")
    suffix = PurePath(name).suffix.lower().lstrip(".")
    mesh = read_triangles(data) if suffix == "off" else None
    if mesh is None:
        try:
            mesh = trimesh.load_mesh(io.BytesIO(data), file_type=suffix, process=False)
        except _PARSER_ERRORS as error:
            if suffix == "off" and not re.match(rb"(\s|#.*\n)*[A-Z0-9]*OFF", data):
                raise CorruptMeshError("does not begin with OFF, as an OFF file must") from error
            raise CorruptMeshError(f"cannot be parsed ({type(error).__name__}: {error})") from error
    # trimesh takes the faces it finds, so a file cut short would pass for a smaller mesh.
    header = re.search(rb"OFF\s*(\d+)\s+(\d+)", re.sub(rb"#.*", b"", data)) if suffix == "off" else None
    if header and len(mesh.faces) < int(header[2]):
        raise CorruptMeshError(f"holds {len(mesh.faces)} of the {int(header[2])} faces its header promises")
    if not np.isfinite(mesh.vertices).all():
        raise CorruptMeshError("has vertices that are not finite")
    if not len(mesh.faces):
        raise CorruptMeshError("has no faces, so there is no surface to sample; is it really a mesh?")
    if not 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices):
        raise CorruptMeshError(f"has faces of vertices that it lacks: it holds {len(mesh.vertices)}")
    if not 0 < mesh.area < np.inf:
        raise CorruptMeshError("has no surface: its faces have no area")
    return mesh


def sample_mesh(
    mesh: trimesh.Trimesh, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sample points uniformly by area, centred and scaled into the unit sphere.

    Args:
        mesh: A mesh with a surface.
        count: The number of points N.
        rng: The source of randomness.

    Returns:
        Points (N, 3) and the unit normals (N, 3) of their faces, both float32. Normals point to the side the
        file's vertex order says, which in ModelNet is not always the outside.
    """
    points, faces = trimesh.sample.sample_surface(mesh, count, seed=rng)[:2]
    normals = np.asarray(mesh.triangles_cross)[faces]
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)
    return unit_sphere(np.asarray(points)), normals.astype(np.float32)


def unit_sphere(points: NDArray[np.floating]) -> NDArray[np.float32]:
    """Centre points (N, 3) on their mean and scale them so that the farthest is at distance 1.

    Raises:
        ValueError: If the points are not (N, 3) with N ≥ 1, not finite, or all at one place.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise ValueError(f"a cloud must be (N, 3) with N of at least 1; got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError("a cloud must be finite; it holds NaN or infinity")
    points = points - points.mean(axis=0)
    with np.errstate(over="ignore"):  # said below
        radius = np.linalg.norm(points, axis=1).max()
    if not 0 < radius < np.inf:
        raise ValueError(
            f"all {len(points)} points of the cloud lie at one place, so it has no size"
            if radius == 0
            else "the cloud is so large that its size overflows; scale it down"
        )
    return (points / radius).astype(np.float32)


def mesh_rng(seed: int, key: str) -> np.random.Generator:
    """The generator of one mesh: it depends on ``seed`` and ``key`` only, not on other meshes."""
    digest = hashlib.sha256(key.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
