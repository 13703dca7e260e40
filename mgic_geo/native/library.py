"""Loading the kernels, and what they say of themselves."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from mgic_geo.native.compiler import compiled

__all__ = ["has_avx512", "has_vnni", "kernels", "load", "plain_torch", "switched_off", "why_not"]

_wanted = True

# No compiler, no home, a quote in CC that is not closed.
_FAILURES = (OSError, AttributeError, RuntimeError, ValueError, subprocess.SubprocessError)

_TYPES = {"*": ctypes.c_void_p, "int64_t": ctypes.c_int64, "float": ctypes.c_float}


def kernels() -> ctypes.CDLL | None:
    """The library, compiled at the first call (seconds) and kept; None where that cannot be done.

    ``MGIC_NATIVE=0`` in the environment switches it off. ``MGIC_NATIVE_CACHE`` names the folder it is in;
    by default ``mgic_geo/native`` in ``XDG_CACHE_HOME`` or ``~/.cache``.
    """
    return load()[0] if _wanted else None


def has_avx512() -> bool:
    """Whether the kernels have registers of 16 floats, without which some are slow."""
    return _says("mgic_has_avx512")


def has_vnni() -> bool:
    """Whether there are dot products of small integers, without which some kernels do nothing."""
    return _says("mgic_has_vnni")


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


def switched_off(name: str) -> bool:
    """Whether a variable of the environment says no."""
    return os.environ.get(name, "").lower() in ("0", "off", "false", "no")


@cache
def load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or why there is none."""
    if switched_off("MGIC_NATIVE"):
        return None, f"switched off by MGIC_NATIVE={os.environ['MGIC_NATIVE']}"
    try:
        library = ctypes.CDLL(str(compiled()))
        for name, arguments in _signatures().items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
    except _FAILURES as error:
        return None, str(error)
    return library, None


def _signatures() -> dict[str, list[Any]]:
    """The types of every kernel's arguments, as its C source declares them."""
    sources = sorted(Path(__file__).parent.glob("*.[ch]"))
    text = "".join(path.read_text(encoding="utf-8") for path in sources)
    # Kernels that begin with the same arguments have them from a macro.
    macros = dict(re.findall(r"#define ([A-Z]+) +\\\n((?:.*\\\n)*.*)", text))
    found = {}
    for name, arguments in re.findall(r"void (mgic_\w+)\(([^)]*)\)", text):
        declared = re.sub(r"\b[A-Z]+\b", lambda match: macros[match[0]], arguments).replace("\\\n", "")
        found[name] = [_TYPES["*" if "*" in one else one.split()[0]] for one in declared.split(",")]
    return found
