"""Matrix products in full float32, whatever the user has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch

__all__ = ["full_precision"]

_lock, _inside = Lock(), 0
_before: tuple[str, list[str]] = "", []


@contextmanager
def full_precision(device: str) -> Iterator[None]:
    """No autocast, no TF32 or bfloat16 inside matrix products.

    Their precision is a setting of the whole process, not of a thread: the first thread to come changes it,
    and the last to go puts it back.
    """
    global _inside, _before
    with torch.autocast(device, enabled=False):
        with _lock:
            if _inside == 0:
                _before = _precisions()
                _set_full(_before[0])
            _inside += 1
        try:
            yield
        finally:
            with _lock:
                _inside -= 1
                if _inside == 0:
                    _put_back(*_before)


def _backends() -> list[Any]:
    """Those whose products have a precision of their own."""
    return [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # pyright: ignore[reportAttributeAccessIssue]


def _precisions() -> tuple[str, list[str]]:
    """Of the whole process, "" where backends contradict it, then of the backends."""
    try:
        overall = torch.get_float32_matmul_precision()
    except RuntimeError:
        overall = ""
    return overall, [matmul.fp32_precision for matmul in _backends()]


def _set_full(overall: str) -> None:
    """Touches nothing that is full; torch's older and newer settings go on to agree where they did."""
    if overall not in ("highest", ""):
        torch.set_float32_matmul_precision("highest")  # that of all backends, too
    for matmul in _backends():
        if matmul.fp32_precision not in ("ieee", "none"):
            matmul.fp32_precision = "ieee"


def _put_back(overall: str, each: list[str]) -> None:
    if overall not in ("highest", ""):
        torch.set_float32_matmul_precision(overall)
    for matmul, before in zip(_backends(), each, strict=True):
        if matmul.fp32_precision != before:
            matmul.fp32_precision = "none"  # what it inherits
        if matmul.fp32_precision != before:
            matmul.fp32_precision = before
