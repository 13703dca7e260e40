"""Loops for the CPU that torch has no operator for, compiled where a C compiler is at hand; plain torch elsewhere."""

from mgic_geo.native.library import kernels, why_not
from mgic_geo.native.when import applies

__all__ = ["applies", "kernels", "why_not"]
