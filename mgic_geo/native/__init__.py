"""Loops for the CPU that torch has no operator for, compiled where a C compiler is at hand."""

from mgic_geo.native.dispatch import applies, followed, in_transform, run
from mgic_geo.native.library import integral, kernels, plain_torch, switched_off, why_not, wide

__all__ = [
    "applies", "followed", "in_transform", "integral", "kernels", "plain_torch", "run", "switched_off",
    "why_not", "wide",
]  # fmt: skip
