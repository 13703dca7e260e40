"""When compiled loops may run: on plain tensors, where nobody else has to see the steps between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mgic_geo.native.library import kernels
from mgic_geo.native.transforms import followed

__all__ = ["applies"]


def applies(*tensors: Tensor | None) -> bool:
    """Whether the kernels are there and these are plain float32 tensors on the CPU.

    Not while somebody follows torch's operators (:func:`mgic_geo.native.followed`).
    """
    return (
        not followed()
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
        and kernels() is not None
    )
