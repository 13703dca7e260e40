"""Loading the kernels, and what they say of themselves."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from mgic_geo.native.compiler import compiled

__all__ = ["integral", "kernels", "load", "plain_torch", "why_not", "wide"]

_wanted = True

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
        for name, arguments in _ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
    except (OSError, AttributeError, RuntimeError, subprocess.SubprocessError) as error:  # nor a home, say
        return None, str(error)
    return library, None
