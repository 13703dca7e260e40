"""When Triton kernels may run: on a GPU that Triton serves, where nobody has to see the steps between."""

from __future__ import annotations

import importlib.util
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from mgic_geo.native import followed, switched_off

__all__ = ["REDUCES", "WAITS", "applies", "serves"]

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
# The Triton of torch 2.12 (3.7) fails while it compiles a kernel for GPUs such as the A100; 2.14's does not.
_SOUND = torch.__version__ >= "2.14a0" and importlib.util.find_spec("triton") is not None
_WANTED = _SOUND and not switched_off("MGIC_TRITON")

WAITS: dict[str, Any] = {"tags": (torch.Tag.cudagraph_unsafe,)}
"""Options of an operator that waits for the device, so that no CUDA graph can hold it."""
REDUCES: dict[str, Any] = {} if _WANTED else WAITS
"""Those of sums and maxima over neighbours, whose kernels do not wait, while torch's operators do."""


def applies(*tensors: Tensor) -> bool:
    """Whether kernels may stand for torch's operators on these tensors.

    Not while a program is exported, which must run where this package is not, nor while somebody follows
    torch's operators (:func:`mgic_geo.native.followed`), save compiled code: that sees one operator.
    """
    if not all(map(_known, tensors)) or torch.compiler.is_exporting():
        return False
    if torch.compiler.is_compiling():  # which takes Triton itself
        return _WANTED
    return not followed() and all(type(x) in (Tensor, nn.Parameter) and serves(x) for x in tensors)


def serves(x: Tensor) -> bool:
    """Whether there are kernels for this device and type; ``MGIC_TRITON=0`` keeps to torch's operators."""
    return _known(x) and _works(x.device)


def _known(x: Tensor) -> bool:
    return _on_gpu(x) and x.dtype in _DTYPES and x.layout == torch.strided


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda


@cache
def _works(device: torch.device) -> bool:
    """Whether Triton compiles and runs here, found out once: it wants a C compiler and no old GPU."""
    if not _WANTED:
        return False
    from mgic_geo.graph.gpu.reduce import neighbor_sum

    try:
        pair = torch.arange(2, device=device)
        return neighbor_sum(torch.ones(1, 1, device=device), pair, pair[:1]).item() == 1
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever Triton, the driver or the compiler raise
        warnings.warn(
            f"Triton's kernels do not run on {device} ({error}), so torch's slower operators do; "
            "MGIC_TRITON=0 keeps to them without this warning",
            stacklevel=2,
        )
        return False
