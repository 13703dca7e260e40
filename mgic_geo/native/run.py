"""Calling a kernel with tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from mgic_geo.native.library import load

__all__ = ["run"]


def run(name: str, *arguments: Tensor | float | None) -> None:
    """Call the kernel ``name`` with torch's number of threads.

    Args:
        name: Without its prefix.
        arguments: Contiguous tensors on the CPU, numbers, or None for an array that is not there.

    Raises:
        RuntimeError: If there are no kernels; ask :func:`mgic_geo.native.applies` first.
    """
    library = load()[0]  # whatever plain_torch says: a step that has begun is finished
    if library is None:
        raise RuntimeError(f"there is no kernel {name}; ask mgic_geo.native.applies first")
    for argument in arguments:
        assert not isinstance(argument, Tensor) or (argument.is_cpu and argument.is_contiguous())
    pointers = (argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments)
    getattr(library, f"mgic_{name}")(*pointers, torch.get_num_threads())
