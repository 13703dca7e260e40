"""Loops for the CPU that torch has no operator for, compiled where a C compiler is at hand."""

from mgic_geo.native.library import integral, kernels, plain_torch, why_not, wide
from mgic_geo.native.run import run
from mgic_geo.native.transforms import in_transform
from mgic_geo.native.when import applies

__all__ = ["applies", "in_transform", "integral", "kernels", "plain_torch", "run", "why_not", "wide"]
