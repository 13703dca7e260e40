"""Loops for the CPU that torch has no operator for, compiled where a C compiler is at hand."""

from mgic_geo.native.library import integral, kernels, plain_torch, switched_off, why_not, wide
from mgic_geo.native.run import run
from mgic_geo.native.transforms import followed, in_transform
from mgic_geo.native.when import applies

__all__ = [
    "applies", "followed", "in_transform", "integral", "kernels", "plain_torch", "run", "switched_off",
    "why_not", "wide",
]  # fmt: skip
