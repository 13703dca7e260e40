"""Workers give what one process gives, know no torch, and end with whoever started them."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mgic_geo.datasets import workers
from mgic_geo.datasets.sampling import sample_chunk
from mgic_geo.datasets.sources import find_meshes
from mgic_geo.datasets.workers import sample_with_workers

# Says who its worker is once it has sampled, and waits for ever.
PARENT = """
import sys, time
from mgic_geo.datasets import workers
results = workers.sample_with_workers([(sys.argv[1], [(0, sys.argv[2], "a")], 16, 0)] * 2, 1)
next(results)
print("sampled", flush=True)
time.sleep(600)
"""


@pytest.fixture
def tasks(meshes):
    """A task for each of ten meshes, one of them corrupt."""
    source = find_meshes(meshes)
    (meshes / source.meshes[3].path).write_text("OFF\n")
    return [(str(meshes), [(i, mesh.path, mesh.key)], 64, 0) for i, mesh in enumerate(source.meshes)]


@pytest.fixture
def started(monkeypatch):
    """The workers' processes, as they start."""
    processes, start = [], workers._started
    monkeypatch.setattr(workers, "_started", lambda: processes.append(start()) or processes[-1])
    return processes


def test_same_samples(tasks, started):
    found = dict(sample_with_workers(tasks, 2))
    expected = dict(result for task in tasks for result in sample_chunk(*task))
    assert sorted(found) == list(range(10))
    assert found[3] == expected[3]
    for index in {*found} - {3}:
        for own, other in zip(found[index], expected[index], strict=True):
            np.testing.assert_array_equal(own, other)
    assert [process.returncode for process in started] == [0, 0]


def test_no_more_workers_than_tasks(tasks, started):
    assert len(list(sample_with_workers(tasks[:1], 5))) == 1
    assert len(started) == 1
    assert list(sample_with_workers([], 5)) == []
    assert len(started) == 1


def test_each_worker_works_on_one_thread(tasks, started, monkeypatch):
    asked, answer = [], workers._answer
    monkeypatch.setattr(
        workers, "_answer", lambda process, task: asked.append(process) or answer(process, task)
    )
    results = sample_with_workers(tasks, 2)
    next(results)
    status = Path(f"/proc/{started[0].pid}/status")
    if status.exists():  # Linux; a pool of threads of numpy's would show
        assert "Threads:\t1\n" in status.read_text()
    assert len(list(results)) == 9
    assert {*asked} == {*started}
    assert len(asked) == 10


def test_results_that_nobody_wants(tasks, started):
    results = sample_with_workers(tasks, 2)
    next(results)
    results.close()
    assert [process.returncode for process in started] == [0, 0]


def test_errors_are_raised_here(tasks, started):
    gone = ("nowhere.zip", *tasks[0][1:])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zip"):
        list(sample_with_workers([gone, *tasks], 2))
    assert [process.returncode for process in started] == [0, 0]


def test_a_dead_worker_is_said(tasks, started, monkeypatch):
    monkeypatch.setattr(workers, "_WORKER", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="a worker process died"):
        list(sample_with_workers(tasks, 1))
    assert [process.returncode for process in started] == [3]


def test_a_worker_killed_at_work_is_said(tasks, started):
    results = sample_with_workers(tasks * 500, 1)  # more than it can have done by then
    next(results)
    started[0].kill()
    with pytest.raises(RuntimeError, match="a worker process died"):
        list(results)


def test_it_imports_neither_torch_nor_the_package():
    code = workers._WORKER + "print(*({'torch', 'mgic_geo'} & sys.modules.keys()), 'done', file=sys.stderr)"
    first = pickle.dumps((sys.path, str(Path(workers.__file__).parent)))
    run = subprocess.run([sys.executable, "-c", code], input=first, capture_output=True, timeout=60)
    assert run.stderr.split() == [b"done"]


@pytest.mark.skipif(os.name != "posix", reason="kills")
def test_workers_end_with_a_killed_parent(meshes):
    command = [sys.executable, "-W", "ignore", "-c", PARENT, str(meshes), "box/test/box_0000.off"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"sampled\n"
        parent.send_signal(signal.SIGKILL)
        parent.communicate(timeout=60)  # the worker has the same standard error, which ends once it is gone
