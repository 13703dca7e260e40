"""Matrix products in full float32, whatever the user has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch

__all__ = ["full_precision"]

_lock, _inside, _before = Lock(), 0, ("", "")


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
                _set(("ieee", "ieee") if _by_backend() else ("highest", ""))
            _inside += 1
        try:
            yield
        finally:
            with _lock:
                _inside -= 1
                if _inside == 0:
                    _set(_before)


def _by_backend() -> bool:
    """Whether each backend has its own precision: torch 2.9 and newer, which forbids mixing both ways."""
    return hasattr(torch.backends.cuda.matmul, "fp32_precision")


def _precisions() -> tuple[str, str]:
    if not _by_backend():
        return torch.get_float32_matmul_precision(), ""
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]


def _set(precisions: tuple[str, str]) -> None:
    if not _by_backend():
        torch.set_float32_matmul_precision(precisions[0])
        return
    torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision = precisions  # type: ignore[attr-defined]
