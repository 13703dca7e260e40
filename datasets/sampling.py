"""Sampling some meshes of a source, which is what a worker process does; nothing here imports torch."""

from __future__ import annotations

import os
import pickle
import sys
from lzma import LZMAError
from pathlib import Path
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

from .meshes import CorruptMeshError, mesh_rng, parse_mesh, sample_mesh
from .sources import opened

# A zip's member may be damaged, encrypted, or packed in a way Python cannot unpack.
_ARCHIVE_ERRORS = (BadZipFile, ZlibError, LZMAError, RuntimeError, NotImplementedError, EOFError)

Sampled = tuple[int, tuple[NDArray[np.float32], NDArray[np.float32]] | str]
"""A mesh's place in the source with its points and normals, or with what is wrong with it."""

Task = tuple[str, list[tuple[int, str, str]], int, int]
"""The arguments of :func:`sample_chunk`, of Python's own types: a worker knows no others."""


def sample_chunk(source: str, chunk: list[tuple[int, str, str]], pool: int, seed: int) -> list[Sampled]:
    """Sample some meshes.

    Args:
        source: Path of the folder or zip.
        chunk: Of each mesh its place in the source, its path there, and its key.
        pool: Points of each.
        seed: With the key it decides the samples.
    """
    results: list[Sampled] = []
    with opened(Path(source)) as read:
        for index, path, key in chunk:
            try:
                results.append((index, sample_mesh(parse_mesh(read(path), path), pool, mesh_rng(seed, key))))
            except CorruptMeshError as error:
                results.append((index, str(error)))
            except OSError as error:
                results.append((index, f"cannot be read ({error})"))
            except _ARCHIVE_ERRORS as error:
                results.append((index, f"cannot be unpacked ({error})"))
    return results


def serve() -> None:
    """Answer the tasks that come through standard input, until it ends, through standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints must not get among the answers
    while True:
        try:
            task: Task = pickle.load(sys.stdin.buffer)
        except EOFError:  # no more tasks, or nobody any more who gives them
            return
        try:
            answer = sample_chunk(*task)
        except Exception as error:  # raised anew where the task came from
            answer = error
        try:
            pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except BrokenPipeError:
            os._exit(1)
