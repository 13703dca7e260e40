"""Processes that sample meshes at the same time."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue

from .sampling import Sampled, Task

# The worker's modules are this folder's, by another name: theirs would import torch, which takes longer than
# sampling hundreds of meshes. multiprocessing would import the running script as well.
_WORKER = """
import pickle, signal, sys, types
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path[:], folder = pickle.load(sys.stdin.buffer)
package = sys.modules["mesh_worker"] = types.ModuleType("mesh_worker")
package.__path__ = [folder]
from mesh_worker.sampling import serve
serve()
"""

# Each has a core to itself.
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}

_Process = subprocess.Popen[bytes]


def sample_with_workers(tasks: Sequence[Task], workers: int) -> Generator[Sampled]:
    """Give the results of all tasks, as they come.

    A worker ends as soon as this process does, whatever ends it.

    Args:
        tasks: For :func:`.sampling.sample_chunk`.
        workers: Processes, 1 or more; as many start as there are tasks, at most.

    Raises:
        RuntimeError: If a worker died.
        Exception: Whatever a task raised.
    """
    with ExitStack() as stack:
        idle: SimpleQueue[_Process] = SimpleQueue()
        count = min(workers, len(tasks))
        for _ in range(count):
            process = _started()
            stack.callback(_end, process)
            idle.put(process)

        def answer(task: Task) -> list[Sampled]:
            process = idle.get()
            try:
                return _answer(process, task)
            finally:
                idle.put(process)

        threads = ThreadPoolExecutor(max(1, count))
        stack.callback(threads.shutdown, cancel_futures=True)
        for future in as_completed([threads.submit(answer, task) for task in tasks]):
            yield from future.result()


def _started() -> _Process:
    command = [sys.executable, "-P", "-c", _WORKER]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=os.environ | _ONE_THREAD)
    _send(process, (sys.path, str(Path(__file__).parent)))
    return process


def _answer(process: _Process, task: Task) -> list[Sampled]:
    try:
        _send(process, task)
        assert process.stdout is not None
        answer = pickle.load(process.stdout)
    except (EOFError, OSError, pickle.UnpicklingError) as error:
        raise RuntimeError(
            "a worker process died; its own message, if it left one, is above. With workers=0 meshes are "
            "sampled without any"
        ) from error
    if isinstance(answer, Exception):
        raise answer
    return answer


def _send(process: _Process, what: object) -> None:
    assert process.stdin is not None
    process.stdin.write(pickle.dumps(what))
    process.stdin.flush()


def _end(process: _Process) -> None:
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what a dead worker did not take
            if pipe is not None:
                pipe.close()
    process.wait()
