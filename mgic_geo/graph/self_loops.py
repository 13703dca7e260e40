"""The option ``add_self_loops`` of layers that are made of layers, and what those keep of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

__all__ = ["forget_graphs", "keeps_features", "self_loops_of"]

_FEATURES = ("_cached_x", "_cached_h")


def self_loops_of(layers: Callable[[Any], Iterable[nn.Module]]) -> property:
    """The attribute ``add_self_loops``, which PyG's ``to_hetero`` reads and its ``DirGNNConv`` sets.

    Args:
        layers: Gives the layers that a layer is made of. All of them are set; the last is read.
    """

    def get(self: nn.Module) -> bool:
        return bool(getattr([*layers(self)][-1], "add_self_loops", False))

    def put(self: nn.Module, value: bool) -> None:
        for layer in layers(self):
            if hasattr(layer, "add_self_loops"):
                layer.add_self_loops = value  # type: ignore[assignment]
            elif value:
                raise AttributeError(f"{layer} has no self-loops to add; add them to the graph")
        forget_graphs(self)  # which have the loops that they had

    return property(get, put, doc="Whether the layers add self-loops.")


def forget_graphs(layer: nn.Module) -> None:
    """Drop the one graph, or the features on it, that PyG's layers with ``cached=True`` keep."""
    for module in layer.modules():
        for name in ("_cached_edge_index", "_cached_adj_t", *_FEATURES):
            if hasattr(module, name):
                setattr(module, name, None)


def keeps_features(layer: nn.Module) -> bool:
    """Whether a layer was built with ``cached=True`` and keeps the features of its first call.

    SGConv and SSGConv do, where others keep the graph: right for the fixed input of a whole network only.
    """
    return any(
        getattr(module, "cached", False) and any(hasattr(module, name) for name in _FEATURES)
        for module in layer.modules()
    )
