"""Loops for the CPU that torch has no operator for, compiled where a C compiler is at hand."""

from mgic_geo.native.dispatch import applies, followed, in_transform, run
from mgic_geo.native.library import has_avx512, has_vnni, kernels, plain_torch, switched_off, why_not

__all__ = [
    "applies", "followed", "has_avx512", "has_vnni", "in_transform", "kernels", "plain_torch", "run",
    "switched_off", "why_not",
]  # fmt: skip
