"""Kernels in place of torch's operators: whether they may run, where nobody follows these, and the call."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from mgic_geo.native.library import kernels, load

__all__ = ["applies", "followed", "in_transform", "run"]


def followed() -> bool:
    """Whether somebody follows torch's operators, so that these must run and no form of our own.

    That is a compiler, a trace, a transform of ``torch.func``, or a dispatch mode: it counts or fakes them.
    """
    return (
        torch.compiler.is_compiling()
        or _get_current_dispatch_mode() is not None
        or in_transform()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
    )


def in_transform() -> bool:
    """Whether a transform of ``torch.func`` (grad, jvp, vmap, ...) or forward-mode autograd is at work.

    Neither follows an autograd function that has a ``backward`` alone, so layers then take plain operators.
    Compiled code does so anyway, and cannot ask.
    """
    if torch.compiler.is_compiling():
        return False
    # torch has no public question for either.
    return torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def applies(*tensors: Tensor | None) -> bool:
    """Whether the kernels are there and these are plain float32 tensors on the CPU.

    Not while somebody follows torch's operators (:func:`followed`).
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


def run(name: str, *arguments: Tensor | float | None) -> None:
    """Call the kernel ``name`` with torch's number of threads.

    Args:
        name: Without its prefix.
        arguments: Contiguous tensors on the CPU, numbers, or None for an array that is not there.

    Raises:
        RuntimeError: If there are no kernels; ask :func:`applies` first.
    """
    library = load()[0]  # whatever plain_torch says: a step that has begun is finished
    if library is None:
        raise RuntimeError(f"there is no kernel {name}; ask mgic_geo.native.applies first")
    for argument in arguments:
        assert not isinstance(argument, Tensor) or (argument.is_cpu and argument.is_contiguous())
    pointers = (argument.data_ptr() if isinstance(argument, Tensor) else argument for argument in arguments)
    getattr(library, f"mgic_{name}")(*pointers, torch.get_num_threads())
