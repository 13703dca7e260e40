"""Compiling and loading the kernels: once a machine and version, in the user's cache folder."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

__all__ = ["integral", "kernels", "load", "plain_torch", "why_not", "wide"]

_wanted = True

_FOLDER = Path(__file__).parent
_FLAGS = ("-O3", "-fPIC", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
_TUNED = ("-march=native", "-fopenmp")
_POINTER, _INTEGER, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_GRAPH = [_INTEGER] * 6 + [_REAL] + [_POINTER] * 11
_NETWORK = [_INTEGER] * 6 + [_POINTER] * 15
_ARGUMENTS = {
    "mgic_knn_products": [_POINTER] * 3 + [_INTEGER] * 7 + [_REAL] + [_POINTER] * 3 + [_INTEGER],
    "mgic_knn_symmetric": [_POINTER] * 2 + [_INTEGER] * 7 + [_REAL] + [_POINTER] * 3 + [_INTEGER] * 2,
    "mgic_knn_settle": [_POINTER] + [_INTEGER] * 2 + [_POINTER] + [_INTEGER] * 3 + [_POINTER] + [_INTEGER],
    "mgic_knn_rounded": [_POINTER] + [_INTEGER] * 7 + [_POINTER] * 5 + [_INTEGER],
    "mgic_knn_direct": [_POINTER] + [_INTEGER] * 5 + [_POINTER] + [_INTEGER],
    "mgic_linear": [_POINTER] * 3 + [_INTEGER] * 5 + [_POINTER, _INTEGER],
    "mgic_linear_grad": [_POINTER] * 2 + [_INTEGER] * 4 + [_POINTER] * 2 + [_INTEGER],
    "mgic_edge_conv": [_POINTER] * 4 + [_INTEGER] * 6 + [_POINTER] * 3 + [_INTEGER],
    "mgic_edge_conv_grad": [_POINTER] * 5 + [_INTEGER] * 6 + [_POINTER] * 3 + [_INTEGER],
    "mgic_cycle": [*[_POINTER] * 13, _INTEGER],
    "mgic_cycle_grad": [*[_POINTER] * 18, _INTEGER],
    "mgic_edge_norm": [_POINTER] * 4 + [_INTEGER] * 6 + [_POINTER] * 5 + [_INTEGER],
    "mgic_edge_norm_grad": [
        *[_POINTER] * 9,
        *[_INTEGER] * 6,
        *[_POINTER] * 3,
        _REAL,
        *[_POINTER] * 5,
        _INTEGER,
    ],
    "mgic_correct_moments": [_POINTER] * 3 + [_INTEGER] * 4 + [_POINTER] * 4 + [_INTEGER],
    "mgic_correct_apply": [_POINTER] * 4 + [_INTEGER] * 4 + [_POINTER] * 5 + [_INTEGER],
    "mgic_correct_sums": [_POINTER] * 4 + [_INTEGER] * 4 + [_POINTER] * 4 + [_INTEGER],
    "mgic_correct_grad": [_POINTER] * 7 + [_INTEGER] * 4 + [_POINTER] * 3 + [_INTEGER],
    "mgic_norm_moments": [_POINTER] + [_INTEGER] * 2 + [_POINTER] * 3 + [_INTEGER],
    "mgic_norm_apply": [_POINTER] * 2 + [_INTEGER] * 2 + [_POINTER] * 3 + [_REAL, _POINTER, _INTEGER],
    "mgic_norm_add": [_POINTER] * 2 + [_INTEGER] * 2 + [_POINTER] * 3 + [_REAL, _POINTER, _INTEGER],
    "mgic_norm_add_sums": [_POINTER] * 3 + [_INTEGER] * 2 + [_POINTER, _REAL] + [_POINTER] * 4 + [_INTEGER],
    "mgic_conv_moments": [_POINTER] * 2 + [_INTEGER] * 5 + [_POINTER] * 4 + [_INTEGER],
    "mgic_conv_norm_grad": [_POINTER] * 4
    + [_INTEGER] * 5
    + [_POINTER] * 3
    + [_REAL]
    + [_POINTER] * 5
    + [_INTEGER],
    "mgic_norm_sums": [_POINTER] * 2
    + [_INTEGER] * 2
    + [_POINTER] * 3
    + [_REAL]
    + [_POINTER] * 3
    + [_INTEGER],
    "mgic_norm_grad": [_POINTER] * 2
    + [_INTEGER] * 2
    + [_POINTER] * 3
    + [_REAL]
    + [_POINTER] * 3
    + [_INTEGER],
    "mgic_messages": [*_GRAPH, *[_POINTER] * 3, _INTEGER],
    "mgic_messages_grad": [*_GRAPH, *[_POINTER] * 10, _INTEGER],
    "mgic_scores": [*_GRAPH, _POINTER, _INTEGER],
    "mgic_edge_softmax": [_POINTER] + [_INTEGER] * 2 + [_POINTER] * 3 + [_INTEGER],
    "mgic_edge_softmax_grad": [_POINTER] * 2 + [_INTEGER] * 2 + [_POINTER] * 3 + [_INTEGER],
    "mgic_edge_reduce": [*_NETWORK, _POINTER, _INTEGER],
    "mgic_edge_reduce_grad": [*_NETWORK, *[_POINTER] * 11, _INTEGER],
    "mgic_sort_edges": [_POINTER] * 2 + [_INTEGER] * 2 + [_POINTER] * 3 + [_INTEGER],
}


def kernels() -> ctypes.CDLL | None:
    """The library, compiled at the first call (seconds) and kept; None where that cannot be done.

    ``MGIC_NATIVE=0`` in the environment switches it off. ``MGIC_NATIVE_CACHE`` names the folder it is in;
    by default ``mgic_geo/native`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
    """
    return load()[0] if _wanted else None


def wide() -> bool:
    """Whether the kernels have registers of 16 floats (AVX-512), without which some are slow."""
    return _says("mgic_wide")


def integral() -> bool:
    """Whether there are dot products of small integers (VNNI), without which some kernels do nothing."""
    return _says("mgic_integral")


def _says(name: str) -> bool:
    library = load()[0]
    return library is not None and ctypes.c_int32.in_dll(library, name).value == 1


@contextmanager
def plain_torch() -> Iterator[None]:
    """Do without the kernels inside this block, in all threads: to compare, or to look for an error."""
    global _wanted
    before, _wanted = _wanted, False
    try:
        yield
    finally:
        _wanted = before


def why_not() -> str | None:
    """Why there are no kernels; None where there are."""
    return load()[1]


@cache
def load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or why there is none."""
    if os.environ.get("MGIC_NATIVE", "1") == "0":
        return None, "switched off by MGIC_NATIVE=0"
    try:
        library = ctypes.CDLL(str(_compiled()))
        for name, arguments in _ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
    except (OSError, AttributeError, RuntimeError, subprocess.SubprocessError) as error:  # nor a home, say
        return None, str(error)
    return library, None


def _compiled() -> Path:
    """The path of the shared library, compiled unless it is there."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform == "win32":
        raise OSError("no C compiler (cc, gcc or clang) on the path")
    sources = sorted(_FOLDER.glob("*.c"))
    content = b"".join(path.read_bytes() for path in [*sources, *sorted(_FOLDER.glob("*.h"))])
    key = hashlib.sha256(content + repr((compiler, _FLAGS, _TUNED, _machine())).encode()).hexdigest()[:16]
    cache = _cache()
    # The name tells the content: loading a file that a full disk has cut short would end the process.
    for path in sorted(cache.glob(f"kernels-{key}-*.so")):
        if path.stem.endswith(_digest(path)):
            return path
    cache.mkdir(parents=True, exist_ok=True)
    # Of several processes each writes its own file, and renames it.
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / "kernels.so"
        _run(compiler, sources, made)
        target = cache / f"kernels-{key}-{_digest(made)}.so"
        os.replace(made, target)
    return target


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _run(compiler: str, sources: list[Path], target: Path) -> None:
    """Compile for this machine with threads, or as far as the compiler goes along; a file a core."""
    message = ""
    # Apple's clang has no OpenMP; some compilers know no -march=native.
    for extra in (_TUNED, _TUNED[:1], ()):
        objects = [target.with_name(f"{path.stem}.o") for path in sources]
        commands = [
            [compiler, *_FLAGS, *extra, "-c", str(path), "-o", str(made)]
            for path, made in zip(sources, objects, strict=True)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            failed = [error for error in pool.map(_error, commands) if error is not None]
        link = [compiler, *_FLAGS, *extra, "-shared", *map(str, objects), "-o", str(target), "-lm"]
        message = failed[0] if failed else _error(link) or ""
        if not message:
            return
    raise OSError(f"{compiler} failed: {message[:500]}")


def _error(command: list[str]) -> str | None:
    """What a command that failed says."""
    pipes = {"capture_output": True, "text": True, "errors": "replace"}
    done = subprocess.run(command, timeout=120, check=False, **pipes)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit status {done.returncode}"


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MGIC_NATIVE_CACHE") or Path(base) / "mgic_geo" / "native")


def _machine() -> str:
    """What -march=native depends on: homes are shared between machines."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.system()} {platform.machine()} {flags}"
