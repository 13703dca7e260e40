"""Sampling all meshes of a data set into one HDF5 file, with several processes, resumable at any moment."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from lzma import LZMAError
from pathlib import Path
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from .clouds import SPLITS, PointClouds, write_clouds
from .cores import usable_cores
from .hdf5 import TEXT, opened_hdf5, read_text
from .journal import Journal
from .lock import locked
from .meshes import CorruptMeshError, mesh_rng, parse_mesh, sample_mesh
from .sources import MeshFile, MeshSource, opened

LAYOUT = 1  # part of every cache's name: raise it when the same meshes would give other clouds
_CHUNK = 16  # meshes a worker takes at a time; a kill loses at most this many a worker

_GUARD = (
    "Worker processes import the running script: call load_clouds under `if __name__ == '__main__':`, "
    "or pass workers=0"
)

# A zip's member may be damaged, encrypted, or packed in a way Python cannot unpack.
_ARCHIVE_ERRORS = (BadZipFile, ZlibError, LZMAError, RuntimeError, NotImplementedError, EOFError)

# A mesh's place in the source with its points and normals, or with what is wrong with it.
_Sampled = tuple[int, tuple[NDArray[np.float32], NDArray[np.float32]] | str]


def build_cache(
    file: Path,
    get_source: Callable[[], MeshSource],
    *,
    pool: int,
    seed: int,
    workers: int | None = None,
    skip_corrupt: bool = False,
    progress: bool = True,
) -> None:
    """Sample every mesh of a source into the HDF5 file ``file``; does nothing if the file exists.

    Samples go to ``file``'s name with the suffix ``.partial`` as they come; at the end they are put in order
    into the HDF5 file. A run that was killed is continued, and ends with the same bytes: the samples of a
    mesh depend on ``seed`` and its name only. A lock lets one process at a time work on a file, and others
    wait for it.

    Args:
        file: the file to make.
        get_source: gives the meshes; called only where the file must be made.
        pool: points sampled from each mesh.
        seed: the seed of the samples.
        workers: processes that sample; 0 samples in this one. None takes one a core, but this process alone
            where the meshes are few: starting a process takes seconds.
        skip_corrupt: leave corrupt meshes out; they are listed in the root attribute ``skipped``.
        progress: show a progress bar, if stderr is a terminal.

    Raises:
        CorruptMeshError: there are corrupt meshes (all are listed) and they are not to be skipped, or
            a split has no others.
        RuntimeError: a worker process died.
    """
    partial = file.with_suffix(".partial")
    if file.exists():
        partial.unlink(missing_ok=True)  # left by a kill between the last two steps
        return
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # We are a worker importing the script of the process that holds the lock: waiting would never end.
        raise RuntimeError(f"load_clouds was called while a worker process started. {_GUARD}")
    with locked(file):
        if file.exists():
            return
        source = get_source()
        payload = [("points", "<f2", (pool, 3)), ("normals", "<f2", (pool, 3))]
        with Journal(partial, payload) as journal:
            todo = sorted(set(range(len(source.meshes))) - set(journal.keys))
            corrupt: dict[int, str] = {}
            bar = tqdm(
                total=len(source.meshes),
                initial=len(journal.keys),
                desc="sampling meshes",
                unit="mesh",
                disable=None if progress else True,  # None: shown on a terminal only
            )
            with bar:
                for index, result in _sample_all(source, todo, pool, seed, workers):
                    if isinstance(result, str):
                        corrupt[index] = result
                    else:
                        journal.append(index, points=result[0], normals=result[1])
                    bar.update()
            skipped = [f"{source.meshes[index].key}: {why}" for index, why in sorted(corrupt.items())]
            if skipped and not skip_corrupt:
                raise CorruptMeshError(
                    _report(skipped, f"{source.path}") + " The others are sampled already."
                )
            train, test = (_split_clouds(source, journal, split) for split in SPLITS)
            attributes = {
                "source": source.path.name,
                "pool": pool,
                "seed": seed,
                "skipped": np.array(skipped, TEXT),
            }
            write_clouds(file, train, test, attributes)
        partial.unlink(missing_ok=True)


def _sample_all(
    source: MeshSource, todo: list[int], pool: int, seed: int, workers: int | None
) -> Iterator[_Sampled]:
    chunks = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
    tasks = [(source.path, [(i, source.meshes[i]) for i in chunk], pool, seed) for chunk in chunks]
    if workers is None:
        workers = usable_cores() if len(todo) > 1000 else 0
    if workers <= 0:
        for task in tasks:
            yield from sample_chunk(*task)
        return
    context = multiprocessing.get_context("spawn")  # forking a process with torch's threads may hang
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as executor:
        try:
            for future in as_completed([executor.submit(sample_chunk, *task) for task in tasks]):
                yield from future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"a worker process died; its own message, if it left one, is above. {_GUARD}"
            ) from error
        finally:
            executor.shutdown(cancel_futures=True)


def sample_chunk(path: Path, chunk: list[tuple[int, MeshFile]], pool: int, seed: int) -> list[_Sampled]:
    """Sample some meshes of the source at ``path``: what a worker process runs."""
    results: list[_Sampled] = []
    with opened(path) as read:
        for index, mesh in chunk:
            try:
                parsed = parse_mesh(read(mesh.path), mesh.path)
                results.append((index, sample_mesh(parsed, pool, mesh_rng(seed, mesh.key))))
            except CorruptMeshError as error:
                results.append((index, str(error)))
            except _ARCHIVE_ERRORS as error:
                results.append((index, f"cannot be unpacked ({error})"))
    return results


def _end_with_parent() -> None:
    # A parent killed outright cannot stop its workers, and they would wait for tasks for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _split_clouds(source: MeshSource, journal: Journal, split: str) -> PointClouds:
    places = {key: place for place, key in enumerate(journal.keys)}
    kept = [i for i, mesh in enumerate(source.meshes) if mesh.split == split and i in places]
    if not kept:
        raise CorruptMeshError(f"all {split} meshes of {source.path} are corrupt: nothing is left to load")
    records = journal.payloads()[[places[i] for i in kept]]
    labels = [source.classes.index(source.meshes[i].label) for i in kept]
    return PointClouds(
        points=torch.from_numpy(records["points"].copy()),
        labels=torch.tensor(labels),
        names=tuple(source.meshes[i].name for i in kept),
        classes=source.classes,
        normals=torch.from_numpy(records["normals"].copy()),
    )


def check_complete(file: Path) -> None:
    """Raise :class:`CorruptMeshError` if corrupt meshes were left out when the cache ``file`` was made."""
    with opened_hdf5(file) as opened_file:
        skipped = read_text(opened_file.attrs.get("skipped", ()))
    if skipped:
        raise CorruptMeshError(_report(list(skipped), f"the data set behind {file}"))


def _report(skipped: list[str], where: str) -> str:
    return "\n  ".join([f"{len(skipped)} mesh(es) of {where} cannot be used:", *skipped]) + (
        "\nReplace them, or leave them out with skip_corrupt=True (--skip-corrupt on the command line)."
    )
