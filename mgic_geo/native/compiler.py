"""Compiling the kernels: once a machine and version, in the user's cache folder."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["compiled"]

_log = logging.getLogger(__name__)
_FOLDER = Path(__file__).parent
_FLAGS = ("-O3", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
_LONGEST = 600  # seconds for a file, which take less than ten of a core's
_TUNED = ("-march=native", "-fopenmp")


def compiled() -> Path:
    """The path of the shared library, compiled unless it is there.

    Raises:
        OSError: If there is no compiler, if it fails, and if the folder cannot be written.
    """
    compiler = _compiler()
    if compiler is None or sys.platform == "win32":
        raise OSError("no C compiler (cc, gcc or clang) on the path")
    sources = sorted(_FOLDER.glob("*.c"))
    content = b"".join(path.read_bytes() for path in [*sources, *sorted(_FOLDER.glob("*.h"))])
    key = hashlib.sha256(content + repr((compiler, _FLAGS, _TUNED, _machine())).encode()).hexdigest()[:16]
    cache = _cache()
    if (there := _kept(cache, key)) is not None:
        return there
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache):
        return _kept(cache, key) or _made(cache, key, compiler, sources)


def _compiler() -> list[str] | None:
    """The command: ``CC``, which may hold more than a name (``ccache gcc``), or what there is."""
    for command in (os.environ.get("CC", "cc"), "gcc", "clang"):
        name, *rest = shlex.split(command) or [""]
        if (path := shutil.which(name)) is not None:
            return [path, *rest]
    return None


def _kept(cache: Path, key: str) -> Path | None:
    """The library that was compiled before, if it is whole: loading one cut short would end the process."""
    return next(
        (path for path in cache.glob(f"kernels-{key}-*.so") if path.stem.endswith(_digest(path))), None
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let other processes wait and find what this one makes; at once, where folders cannot be locked."""
    import fcntl  # not on Windows

    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _made(cache: Path, key: str, compiler: list[str], sources: list[Path]) -> Path:
    _log.warning("mgic_geo compiles its loops for this processor, once, into %s: half a minute", cache)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / "kernels.so"
        _run(compiler, sources, made)
        target = cache / f"kernels-{key}-{_digest(made)}.so"
        os.replace(made, target)
    return target


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _run(compiler: list[str], sources: list[Path], target: Path) -> None:
    """Compile for this machine with threads, or as far as the compiler goes along; a file a core."""
    message = ""
    # Apple's clang has no OpenMP; some compilers know no -march=native.
    for extra in (_TUNED, _TUNED[:1], ()):
        objects = [target.with_name(f"{path.stem}.o") for path in sources]
        commands = [
            [*compiler, *_FLAGS, *extra, "-c", str(path), "-o", str(made)]
            for path, made in zip(sources, objects, strict=True)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            failed = [error for error in pool.map(_error, commands) if error is not None]
        link = [*compiler, *_FLAGS, *extra, "-shared", *map(str, objects), "-o", str(target), "-lm"]
        message = failed[0] if failed else _error(link) or ""
        if not message:
            return
    raise OSError(f"{shlex.join(compiler)} failed: {message[:500]}")


def _error(command: list[str]) -> str | None:
    """What a command that failed says."""
    pipes = {"capture_output": True, "text": True, "errors": "replace"}
    done = subprocess.run(command, timeout=_LONGEST, check=False, **pipes)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MGIC_NATIVE_CACHE") or Path(base) / "mgic_geo" / "native").expanduser()


def _machine() -> str:
    """What -march=native depends on: homes are shared between machines."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.system()} {platform.machine()} {flags}"
