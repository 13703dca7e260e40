"""When compiled loops may run: on plain tensors, where nobody else has to see the steps between."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from mgic_geo.native.library import kernels
from mgic_geo.native.transforms import in_transform

__all__ = ["applies"]


def applies(*tensors: Tensor | None) -> bool:
    """Whether the kernels are there and these are plain float32 tensors on the CPU.

    Not while code is compiled, traced or exported, inside function transforms (``torch.func``) or under a
    dispatch mode (counting, fake tensors): these follow torch's operators, so those must run.
    """
    return (
        not torch.compiler.is_compiling()
        and all(
            type(x) in (Tensor, nn.Parameter)
            and x.dtype == torch.float32
            and x.is_cpu
            and x.layout == torch.strided
            and not x.is_neg()  # a lazy sign, which memory does not show
            and not x._is_zerotensor()  # zeros without memory
            for x in tensors
            if x is not None
        )
        and _get_current_dispatch_mode() is None
        and not in_transform()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and kernels() is not None
    )
