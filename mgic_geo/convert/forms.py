"""What MGIC forms share: sizes, short descriptions, and the scale of a layer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["Build", "Sizes", "copies", "count", "describe", "gain_of", "leaving", "match_placement"]


@dataclass(frozen=True)
class Sizes:
    """Sizes of every hierarchy of a conversion; see :class:`mgic_geo.ChannelHierarchy`."""

    group_size: int
    coarse_size: int
    min_levels: int = 0

    def too_narrow(self, *widths: int) -> str:
        """Why a layer of these widths has nothing to gain; empty if it has."""
        if min(widths) > self.coarse_size:
            return ""
        return f"too narrow: {min(widths)} channels, coarse_size={self.coarse_size}"


Build = Callable[[Sizes], "nn.Module | str"]
"""Builds the MGIC form of a block or layer, or says why there is none."""


def count(module: nn.Module) -> int:
    """Learned values of a module, but those of a width that is not known yet."""
    return sum(p.numel() for p in module.parameters() if not is_lazy(p))


def match_placement(new: nn.Module, old: nn.Module) -> nn.Module:
    """Give ``new`` placement, precision, memory format and mode of ``old``; freeze it if all of that is."""
    like = next((t for t in old.parameters() if t.is_floating_point()), None)
    if like is not None:
        new.to(device=like.device, dtype=like.dtype)
    if any(p.dim() == 4 and not p.is_contiguous() and _channels_last(p) for p in old.parameters()):
        new.to(memory_format=torch.channels_last)
    new.train(old.training)
    if not any(p.requires_grad for p in old.parameters()):
        new.requires_grad_(False)
    return new


def _channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def gain_of(weight: Tensor) -> float:
    """The root mean square of what a dense ``weight`` (out, in, ...) gives, over that of what it reads.

    That of the layer's own initialisation, whichever it was, or of its training.
    """
    return weight.detach().float().square().mean().sqrt().item() * math.sqrt(weight[0].numel())


def describe(module: nn.Module) -> str:
    """A module in a few words: its class, and its widths where it has them."""
    name = type(module).__name__
    hierarchy = getattr(module, "hierarchy", None)
    if hierarchy is not None:
        return f"{name} {'/'.join(map(str, hierarchy.widths))}"
    if isinstance(module, nn.modules.conv._ConvNd):
        kernel = "×".join(map(str, module.kernel_size))
        return f"{name} {module.in_channels} -> {module.out_channels}, {kernel}"
    for kind in ("channels", "features"):
        widths = getattr(module, f"in_{kind}", None), getattr(module, f"out_{kind}", None)
        if all(isinstance(width, int) for width in widths):
            return f"{name} {widths[0]} -> {widths[1]}"
    return name


def leaving(name: str) -> str:
    """How to leave a layer alone, for the end of an error."""
    return f"match=lambda name, _: name != {name!r} leaves it alone"


def copies(module: nn.Module) -> Callable[..., nn.Module]:
    """A factory of copies of a module without weights, an activation say."""
    return lambda *_, **__: copy.deepcopy(module)
