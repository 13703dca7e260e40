"""Point clouds of ModelNet-10, ModelNet-40, the embedded shapes, or any meshes or clouds in their layouts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import shapes
from .cachefile import cache_file, cache_folder
from .cloud_cache import LAYOUT, build_cache, check_complete
from .clouds import PointClouds, read_clouds
from .download import download
from .lock import locked
from .meshes import CorruptMeshError
from .sources import SPLITS, MeshSource, find_meshes


@dataclass(frozen=True)
class Archive:
    """An official zip: where it is, and its MD5."""

    url: str
    md5: str


ARCHIVES = {
    "modelnet10": Archive(
        "https://3dvision.princeton.edu/projects/2014/3DShapeNets/ModelNet10.zip",
        "18f4c73879802c35aa6178f8e773a99e",
    ),
    "modelnet40": Archive(
        "https://modelnet.cs.princeton.edu/ModelNet40.zip", "79bcee68fdf02f581938ba15f4cdca51"
    ),
}


def load_clouds(
    data: str | os.PathLike[str] = "shapes",
    *,
    cache: str | os.PathLike[str] | None = None,
    pool: int = 4096,
    seed: int = 0,
    workers: int | None = None,
    skip_corrupt: bool = False,
    progress: bool = True,
    normals: bool = False,
) -> tuple[PointClouds, PointClouds]:
    """Load the training and test clouds of a data set, sampling its meshes the first time.

    Samples are kept in an HDF5 file of the cache folder, which :func:`read_clouds` reads too. Its name tells
    the meshes, ``pool`` and ``seed`` it was made from, so changed data is sampled anew. A run that was killed
    while sampling is continued. Once it is there, the meshes of a named data set may be deleted.

    Args:
        data: ``"shapes"``, the ten classes of solids that need no download; ``"modelnet10"`` or
            ``"modelnet40"``, downloaded to the cache folder; or a path: an .h5 file in the layout of
            :func:`read_clouds`, or a folder or zip of meshes ``NAME/<class>/{train,test}/*.off``. Write
            ``./shapes`` for a folder of that name.
        cache: The cache folder; by default the environment variable ``MGIC_DATA``, or else ``data`` in
            the current folder.
        pool: Points sampled from each mesh, uniformly by area, for a loader to draw from. Test clouds are
            fixed by it and ``seed``. An .h5 file has its own.
        seed: The seed of the samples.
        workers: Processes that sample meshes. None: one a core, or this one alone where that takes seconds;
            0: this one alone.
        skip_corrupt: Leave corrupt meshes out, with a warning that names them, instead of stopping.
        progress: Show progress bars, if stderr is a terminal.
        normals: Load the normals too.

    Returns:
        (train, test) clouds.

    Raises:
        FileNotFoundError: If ``data`` is neither a known name nor a path that exists.
        ValueError: If what ``data`` names is not in its layout, or has a class without meshes, or a value is
            out of range.
        CorruptMeshError: If meshes cannot be read or have no surface; the error's ``problems`` lists all of
            them.
        DownloadError: If the download failed; the message says what to put where instead.
    """
    if pool < 1:
        raise ValueError(f"pool must be 1 point or more; got {pool}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more; got {seed}")
    path = Path(data)
    if path.suffix.lower() in (".h5", ".hdf5"):
        file = path
    else:
        folder = cache_folder(cache)
        name, fingerprint, get_source = _find(data, folder, progress)
        file = cache_file(folder, name, LAYOUT, fingerprint, pool, seed)
        build_cache(
            file,
            get_source,
            pool=pool,
            seed=seed,
            workers=workers,
            skip_corrupt=skip_corrupt,
            progress=progress,
        )
        try:
            check_complete(file)
        except CorruptMeshError as error:
            if not skip_corrupt:
                raise
            warnings.warn(f"left out as asked: {error}", stacklevel=2)
    train, test = (read_clouds(file, split, normals=normals) for split in SPLITS)
    return train, test


def _find(
    data: str | os.PathLike[str], folder: Path, progress: bool
) -> tuple[str, str, Callable[[], MeshSource]]:
    """The name of a data set, its fingerprint, and a function that gets hold of its meshes."""
    name, path = str(data), Path(data)
    if name == "shapes":
        meshes = folder / f"shapes-{shapes.EDITION[:8]}"
        return name, shapes.EDITION, lambda: _made(meshes, shapes.write_shapes)
    if name in ARCHIVES:
        archive = ARCHIVES[name]
        target = folder / archive.url.rpartition("/")[2]
        fetch = partial(download, archive.url, md5=archive.md5, progress=progress)
        return name, archive.md5, lambda: _made(target, fetch)
    if not path.exists():
        known = ", ".join(("shapes", *ARCHIVES))
        raise FileNotFoundError(
            f"there is no file or folder {path}, nor a data set of that name (known: {known})"
        )
    source = find_meshes(path)
    return path.resolve().stem.lower(), source.fingerprint, lambda: source


def _made(path: Path, make: Callable[[Path], None]) -> MeshSource:
    with locked(path):
        make(path)
    return find_meshes(path)
