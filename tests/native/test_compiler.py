import ctypes
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import compiled
import pytest

from mgic_geo.native import compiler, library

PROGRAM = """
import torch
from mgic_geo import MGICDynamicEdgeConv
from mgic_geo.native import kernels, why_not
torch.manual_seed(0)
layer = MGICDynamicEdgeConv(64, 64, k=8)
x = torch.randn(2, 300, 64, requires_grad=True)
layer(x).square().sum().backward()
print(kernels() is not None, why_not(), float(x.grad.norm()), sep=" | ")
"""


def start(**environment):
    """The program in a process of its own."""
    command = [
        sys.executable,
        "-W",
        "error::UserWarning:mgic_geo",
        "-W",
        "error::RuntimeWarning",
        "-c",
        PROGRAM,
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=dict(os.environ, OMP_NUM_THREADS="1", **environment), **pipes)


def finish(process):
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    there, why, norm = out.strip().split(" | ")
    return there, why, float(norm), errors


def compile_by(folder, monkeypatch, text):
    """A script named cc, alone on the path but for what a script needs."""
    folder.mkdir(exist_ok=True)
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    for tool in ("cp", "sleep", "touch"):
        (folder / tool).exists() or (folder / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    return path


@pytest.fixture
def copying(tmp_path, monkeypatch):
    """A compiler that takes as long as LINKING says, and tells how often it made a library."""
    count = f'case "$*" in *-shared*) echo . >> {tmp_path}/calls; sleep ${{LINKING:-0}};; esac'
    text = f'{count}; while [ "$1" != -o ]; do shift; done; cp {compiler.compiled()} "$2"'
    compile_by(tmp_path / "bin", monkeypatch, text)
    monkeypatch.setenv("MGIC_NATIVE_CACHE", str(tmp_path / "cache"))
    return lambda: len((tmp_path / "calls").read_text().split())


def fresh():
    """The library and why there is none, as a new process would find them."""
    return library.load.__wrapped__()


@compiled.needed
def test_processes_that_start_at_once_compile_once(copying, tmp_path, monkeypatch):
    monkeypatch.setenv("LINKING", "1")
    processes = [start() for _ in range(2)] + [start(MGIC_NATIVE="0")]
    found = [finish(process) for process in processes]
    assert [(there, why) for there, why, *_ in found] == [("True", "None")] * 2 + [
        ("False", "switched off by MGIC_NATIVE=0")
    ]
    assert copying() == 1
    assert found[0][2] == found[1][2]
    said = [errors for *_, errors in found if errors]  # by the one that compiles
    assert len(said) == 1
    assert re.fullmatch(f"mgic_geo compiles .* into {tmp_path / 'cache'}: half a minute\n", said[0])
    assert found[2][2] == pytest.approx(found[0][2], rel=1e-4)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".so"]


@compiled.needed
def test_a_folder_that_cannot_be_locked(copying, monkeypatch):
    def refuse(handle, operation):
        raise OSError("no locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert fresh()[1] is None
    assert copying() == 1


@compiled.needed
def test_compiled_once(copying, tmp_path, monkeypatch):
    for _ in range(2):
        loaded, why = fresh()
        assert why is None
        assert isinstance(loaded, ctypes.CDLL)
        assert copying() == 1
    shutil.copy(tmp_path / "bin" / "cc", tmp_path / "bin" / "other")
    monkeypatch.setenv("CC", "other")
    assert fresh()[1] is None
    assert copying() == 2
    monkeypatch.setenv("CC", "other -g0")
    assert fresh()[1] is None
    assert copying() == 3


@compiled.needed
@pytest.mark.parametrize("kept", [0, 100, 0.5, -1])
def test_a_file_cut_short_is_made_anew(copying, tmp_path, kept):
    fresh()
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_bytes()
    path.unlink()  # it is loaded
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
    loaded, why = fresh()
    assert (loaded is not None, why) == (True, None)
    assert copying() == 2
    assert path.read_bytes() == whole


@compiled.needed
def test_threads_that_load_at_once(copying):
    found = []
    workers = [threading.Thread(target=lambda: found.append(fresh()[1])) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [None] * 4
    assert copying() == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo no such thing >&2; exit 1", "cc failed: no such thing"),
        ("printf 'b\\351b' >&2; exit 1", "cc failed: b"),
        ("exit 0", "No such file"),
        ('while [ "$1" != -o ]; do shift; done; touch "$2"', "too short|not a mach-o|no suitable image"),
        ("kill -9 $$", "cc failed"),
    ],
    ids=["an error", "an error in no utf-8", "no result", "an empty result", "killed"],
)
def test_a_compiler_that_fails(tmp_path, monkeypatch, text, why):
    monkeypatch.setenv("MGIC_NATIVE_CACHE", str(tmp_path / "cache"))
    compile_by(tmp_path / "bin", monkeypatch, text)
    loaded, reason = fresh()
    assert loaded is None
    assert re.search(why, reason, re.IGNORECASE)


def test_a_compiler_that_is_no_command(monkeypatch):
    monkeypatch.setenv("CC", 'gcc "')
    assert fresh() == (None, "No closing quotation")


def test_no_compile_by(tmp_path, monkeypatch):
    monkeypatch.setenv("MGIC_NATIVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "nothing-of-this-name")
    assert fresh() == (None, "no C compiler (cc, gcc or clang) on the path")
    assert not (tmp_path / "cache").exists()


def test_no_compiler_on_windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    assert fresh()[0] is None


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("MGIC_NATIVE_CACHE", str(blocked / "cache"))
    loaded, why = fresh()
    assert loaded is None
    assert "Not a directory" in why or "no C compiler" in why


def test_no_home(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MGIC_NATIVE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)
    loaded, why = fresh()
    assert loaded is None
    assert "home" in why or "no C compiler" in why


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("MGIC_NATIVE_CACHE", "/one")
    assert compiler._cache() == Path("/one")
    monkeypatch.setenv("MGIC_NATIVE_CACHE", "~/one")
    assert compiler._cache() == Path.home() / "one"
    monkeypatch.setenv("MGIC_NATIVE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert compiler._cache() == Path("/two/mgic_geo/native")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert compiler._cache() == Path.home() / ".cache/mgic_geo/native"
