"""Point clouds of ModelNet-10, ModelNet-40, or any meshes or clouds in their layout."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .cache import LAYOUT, build_cache
from .clouds import SPLITS, PointClouds, read_clouds
from .sources import find_meshes


def load_clouds(
    data: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    pool: int = 4096,
    seed: int = 0,
    workers: int | None = None,
    skip_corrupt: bool = False,
    progress: bool = True,
    normals: bool = False,
) -> tuple[PointClouds, PointClouds]:
    """Load the (train, test) clouds."""
    path = Path(data)
    if path.suffix in (".h5", ".hdf5"):
        train, test = (read_clouds(path, split, normals=normals) for split in SPLITS)
        return train, test
    folder = Path(cache if cache is not None else os.environ.get("MGIC_DATA", "data"))
    source = find_meshes(path)
    key = hashlib.sha256(repr((LAYOUT, source.fingerprint, pool, seed)).encode()).hexdigest()[:12]
    file = folder / f"{path.stem.lower()}-{key}.h5"
    build_cache(
        file, source, pool=pool, seed=seed, workers=workers, skip_corrupt=skip_corrupt, progress=progress
    )
    train, test = (read_clouds(file, split, normals=normals) for split in SPLITS)
    return train, test
