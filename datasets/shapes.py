"""An embedded data set: ten classes of procedural solids, written as meshes in ModelNet's layout.

Proportions and poses vary so widely that moments and extents say little about the class. What tells a
cylinder from a box is the surface, so a linear model on point statistics fails where a point network does
not.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import ArrayLike
from trimesh import Trimesh, creation

TRAIN_PER_CLASS, TEST_PER_CLASS = 70, 30
_SEED = 0  # of the meshes; the seed of their samples is the loader's
_EDGE = 0.7  # longest edge before the solids are bent, in units of their half size of about 1

# The meshes are what this file makes of its seed: any change to it makes another data set.
EDITION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _box(rng: np.random.Generator) -> Trimesh:
    return creation.box((2, 2, 2))


def _cylinder(rng: np.random.Generator) -> Trimesh:
    return creation.cylinder(radius=1, height=2, sections=24)


def _cone(rng: np.random.Generator) -> Trimesh:
    return _moved(creation.cone(radius=1, height=2, sections=24), (0, 0, -1))


def _ellipsoid(rng: np.random.Generator) -> Trimesh:
    return creation.icosphere(subdivisions=2)


def _torus(rng: np.random.Generator) -> Trimesh:
    minor = rng.uniform(0.2, 0.4)
    return creation.torus(1 - minor, minor, major_sections=24, minor_sections=10)


def _tube(rng: np.random.Generator) -> Trimesh:
    return creation.annulus(r_min=rng.uniform(0.5, 0.8), r_max=1, height=2, sections=24)


def _cross(rng: np.random.Generator) -> Trimesh:
    """Three bars through the centre, along the axes."""
    widths = rng.uniform(0.3, 0.7, 3)
    return _joined([creation.box(np.where(np.arange(3) == axis, 2.0, widths[axis])) for axis in range(3)])


def _table(rng: np.random.Generator) -> Trimesh:
    """A top on four legs."""
    thick, leg = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.45)
    top = _moved(creation.box((2, 2, thick)), (0, 0, 1 - thick / 2))
    at = 1 - leg / 2
    legs = [
        _moved(creation.box((leg, leg, 2 - thick)), (x, y, -thick / 2)) for x in (-at, at) for y in (-at, at)
    ]
    return _joined([top, *legs])


def _stairs(rng: np.random.Generator) -> Trimesh:
    """Three or four steps."""
    count = int(rng.integers(3, 5))
    run = 2 / count
    return _joined(
        [
            _moved(creation.box((run, 2, run * (i + 1))), (-1 + run * (i + 0.5), 0, -1 + run * (i + 1) / 2))
            for i in range(count)
        ]
    )


def _spring(rng: np.random.Generator) -> Trimesh:
    """A wire wound about the up axis, two to three turns."""
    turns, wire = rng.uniform(2, 3), rng.uniform(0.08, 0.14)
    along = np.linspace(0, 1, 64)[:, None, None]
    around = np.linspace(0, 2 * np.pi, 8, endpoint=False)[None, :, None]
    angle = 2 * np.pi * turns * along
    outward = np.concatenate([np.cos(angle), np.sin(angle), 0 * angle], axis=2)
    up = np.array([0.0, 0.0, 1.0])
    rings = (1 - wire) * (outward + (2 * along - 1) * up) + wire * (
        np.cos(around) * outward + np.sin(around) * up
    )
    place = np.arange(64 * 8).reshape(64, 8)
    a, b = place[:-1], place[1:]
    c, d = np.roll(a, -1, axis=1), np.roll(b, -1, axis=1)
    faces = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    return Trimesh(rings.reshape(-1, 3), faces, process=False)


SHAPES: dict[str, Callable[[np.random.Generator], Trimesh]] = {
    "box": _box,
    "cone": _cone,
    "cross": _cross,
    "cylinder": _cylinder,
    "ellipsoid": _ellipsoid,
    "spring": _spring,
    "stairs": _stairs,
    "table": _table,
    "torus": _torus,
    "tube": _tube,
}


def make_shape(name: str, rng: np.random.Generator) -> Trimesh:
    """Make one random solid of the class ``name``, a key of ``SHAPES``; z is up."""
    mesh = SHAPES[name](rng)
    points, faces = trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, _EDGE)[:2]
    # Bend towards x, twist and taper, all along z and slight enough to leave the class in no doubt.
    x, y, z = points.T
    x = x + rng.uniform(-0.3, 0.3) * z**2
    angle, taper = rng.uniform(-0.4, 0.4) * z, 1 + rng.uniform(-0.2, 0.2) * z
    x, y = taper * (np.cos(angle) * x - np.sin(angle) * y), taper * (np.sin(angle) * x + np.cos(angle) * y)
    points = np.stack([x, y, z], axis=1)
    points += _waves(points, rng)
    points *= np.exp(rng.uniform(np.log(0.6), np.log(1 / 0.6), 3))
    # Half of the solids lie on a side, and half stand on their head: no extent names the class.
    points = np.roll(points, rng.integers(2), axis=1)
    points *= rng.choice([(1, 1, 1), (1, -1, -1)])
    yaw = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    return Trimesh(points @ turn.T, faces, process=False)


def write_shapes(folder: Path) -> None:
    """Write the data set's meshes as ``folder/<class>/{train,test}/*.off``; does nothing if it is there.

    They are written to another folder, which is renamed once it is whole.
    """
    if folder.exists():
        return
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    for label, name in enumerate(SHAPES):
        for split, start, count in (("train", 0, TRAIN_PER_CLASS), ("test", TRAIN_PER_CLASS, TEST_PER_CLASS)):
            place = temporary / name / split
            place.mkdir(parents=True)
            for number in range(start, start + count):
                mesh = make_shape(name, np.random.default_rng([_SEED, label, number]))
                (place / f"{name}_{number + 1:04d}.off").write_text(_off_text(mesh))
    os.replace(temporary, folder)


def _waves(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise: three random plane waves, each moving the points by up to 0.03."""
    moves = np.zeros_like(points)
    for _ in range(3):
        direction, move = rng.normal(size=3), rng.normal(size=3)
        phase = rng.uniform(0, 2 * np.pi) + 2.5 * points @ (direction / np.linalg.norm(direction))
        moves += 0.03 * np.sin(phase)[:, None] * move / np.linalg.norm(move)
    return moves


def _moved(mesh: Trimesh, by: ArrayLike) -> Trimesh:
    return mesh.apply_translation(by)


def _joined(parts: list[Trimesh]) -> Trimesh:
    joined = trimesh.util.concatenate(parts)
    assert isinstance(joined, Trimesh)
    return joined


def _off_text(mesh: Trimesh) -> str:
    vertices = "\n".join("{:.5f} {:.5f} {:.5f}".format(*vertex) for vertex in mesh.vertices.tolist())
    faces = "\n".join("3 {} {} {}".format(*face) for face in mesh.faces.tolist())
    return f"OFF\n{len(mesh.vertices)} {len(mesh.faces)} 0\n{vertices}\n{faces}\n"
