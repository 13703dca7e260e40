"""
Classify meshes or point clouds with a trained model.

Meshes (.off .obj .ply .stl) are sampled by area, as in training. Clouds are .npy or .xyz files whose rows
begin with x, y, z, or .ply files without faces. The up axis is z, as in ModelNet. Where a file cannot be
classified, the error names it, the others are classified all the same, and the exit status is 1.

    python experiments/predict.py --model runs/modelnet10 chair.off scan.npy
    python experiments/predict.py --model mgic_dgcnn_modelnet10 chair.off  # comes with the package
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
import tyro
from numpy.typing import NDArray
from torch import Tensor

from mgic_geo.datasets import parse_mesh, sample_mesh, unit_sphere
from mgic_geo.training import UsageError, blaming, command_line, load_model, plain_errors

POOL = 4096  # points that load_clouds samples from each mesh
MESHES, CLOUDS = (".off", ".obj", ".ply", ".stl"), (".npy", ".xyz")


@dataclass(kw_only=True)
class Config:
    """Flags of this script."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Meshes or clouds to classify."""
    model: Path = Path("runs/modelnet10")
    """A run's folder, its model.safetensors, or a name of mgic_geo.list_pretrained()."""
    seed: int = 0
    """Decides which points are sampled from a mesh or drawn from a larger cloud."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script with the arguments ``argv``, or those of the command line."""
    config = command_line(Config, argv, __doc__)
    with plain_errors(), blaming("--model"):
        if not config.files:
            raise UsageError("give the files to classify; --help says which formats are read")
        model, card = load_model(config.model)
    rows, failed = [("file", "class", "confidence", "second choice")], False
    for path in config.files:
        try:
            rng = np.random.default_rng(config.seed)
            points = torch.from_numpy(read_points(path, card.points, card.kwargs["k"], rng))
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            print(f"error: {path}: {reason}", file=sys.stderr)
            failed = True
            continue
        rows.append((str(path), *best_two(classify(model, points), card.classes)))
    if len(rows) > 1:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    if failed:
        raise SystemExit(1)


@torch.inference_mode()
def classify(model: torch.nn.Module, points: Tensor) -> Tensor:
    """Return the class probabilities (C,) of one cloud (N, 3)."""
    return model(points[None])[0].float().softmax(0)


def best_two(probabilities: Tensor, classes: Sequence[str]) -> tuple[str, str, str]:
    """Return the most probable class, its probability, and the second choice, as text."""
    shares, order = probabilities.topk(2)
    first, second = classes[int(order[0])], classes[int(order[1])]
    return first, f"{float(shares[0]):.1%}", f"{second} {float(shares[1]):.1%}"


def read_points(path: Path, count: int, least: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """
    Return the mesh or cloud in a file as a model takes it.

    Args:
        path: the file; its suffix tells the format.
        count: points to return, N.
        least: points a cloud must have.
        rng: the source of randomness.

    Returns:
        (N, 3) points, centred and in the unit sphere. A mesh is sampled by area; a cloud of more points loses
        some at random, one of fewer has some repeated.

    Raises:
        OSError: the file cannot be read.
        ValueError: its format is not known, or what it holds is no mesh or cloud that a model could take.
    """
    suffix = path.suffix.lower()
    if suffix not in MESHES + CLOUDS:
        known = " ".join(MESHES + CLOUDS)
        raise ValueError(
            f"files of type {suffix or '(no suffix)'} are not read; convert it to one of {known}"
        )
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


if __name__ == "__main__":
    main()
