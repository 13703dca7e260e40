"""Sampling all meshes of a data set into one HDF5 file, with several processes, resumable at any moment."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .clouds import PointClouds, write_clouds
from .cores import usable_cores
from .hdf5 import TEXT, opened_hdf5, read_text
from .journal import Journal
from .lock import locked
from .meshes import CorruptMeshError
from .problems import REMEDY, report
from .sampling import Sampled, Task, sample_chunk
from .sources import SPLITS, MeshSource
from .workers import sample_with_workers

LAYOUT = 1  # part of every cache's name: raise it when the same meshes would give other clouds
_CHUNK = 16  # meshes a worker takes at a time; a kill loses at most this many a worker
# Sampling a mesh takes about as long as reading _MESH_BYTES; starting workers, half a second, as long as
# reading a third of _MANY_BYTES.
_MESH_BYTES, _MANY_BYTES = 125_000, 150_000_000


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
        file: The file to make.
        get_source: Gives the meshes; called only where the file must be made.
        pool: Points sampled from each mesh.
        seed: The seed of the samples.
        workers: Processes that sample; 0 samples in this one. None takes one a core, but this process alone
            where that takes a second or two, as starting others does.
        skip_corrupt: Leave corrupt meshes out; they are listed in the root attribute ``skipped``.
        progress: Show a progress bar, if stderr is a terminal.

    Raises:
        CorruptMeshError: If there are corrupt meshes (the error's ``problems`` lists all) and they are not to
            be skipped, or a split has no others.
        RuntimeError: If a worker process died.
    """
    partial = file.with_suffix(".partial")
    if file.exists():
        partial.unlink(missing_ok=True)  # left by a kill between the last two steps
        return
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
            with bar, closing(_sample_all(source, todo, pool, seed, workers)) as results:
                for index, result in results:
                    if isinstance(result, str):
                        corrupt[index] = result
                    else:
                        journal.append(index, points=result[0], normals=result[1])
                    bar.update()
            skipped = [f"{source.meshes[index].key}: {why}" for index, why in sorted(corrupt.items())]
            if skipped and not skip_corrupt:
                raise _corrupt(skipped, source.path, " The others are sampled already.")
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
) -> Generator[Sampled]:
    chunks = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
    named = [[(i, source.meshes[i].path, source.meshes[i].key) for i in chunk] for chunk in chunks]
    tasks: list[Task] = [(str(source.path), chunk, pool, seed) for chunk in named]
    if workers is None:
        many = sum(source.meshes[i].size + _MESH_BYTES for i in todo) > _MANY_BYTES
        workers = usable_cores() if many else 0
    if workers <= 0:
        for task in tasks:
            yield from sample_chunk(*task)
    else:
        yield from sample_with_workers(tasks, workers)


def _split_clouds(source: MeshSource, journal: Journal, split: str) -> PointClouds:
    places = {key: place for place, key in enumerate(journal.keys)}
    kept = [i for i, mesh in enumerate(source.meshes) if mesh.split == split and i in places]
    if not kept:
        raise CorruptMeshError(f"all {split} meshes of {source.path} are corrupt: nothing is left to load")
    records = journal.payloads()[[places[i] for i in kept]]
    classes = source.classes  # looked for anew at each call
    labels = [classes.index(source.meshes[i].label) for i in kept]
    return PointClouds(
        points=torch.from_numpy(records["points"].copy()),
        labels=torch.tensor(labels),
        names=tuple(source.meshes[i].name for i in kept),
        classes=classes,
        normals=torch.from_numpy(records["normals"].copy()),
    )


def check_complete(file: Path) -> None:
    """Raise :class:`CorruptMeshError` if corrupt meshes were left out when the cache ``file`` was made."""
    with opened_hdf5(file) as opened_file:
        skipped = read_text(opened_file.attrs.get("skipped", ()))
    if skipped:
        raise _corrupt(skipped, f"the data set behind {file}")


def _corrupt(problems: Sequence[str], where: object, note: str = "") -> CorruptMeshError:
    head = f"{len(problems)} mesh(es) of {where} cannot be used:"
    error = CorruptMeshError(f"{report(head, problems)}\n{REMEDY}{note}")
    error.problems = tuple(problems)
    return error
