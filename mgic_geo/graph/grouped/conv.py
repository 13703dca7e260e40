"""Message-passing layers that act within channel groups.

One definition: output group g of ``grouped(conv, groups)(in, out)`` depends on input group g only, and on
the graph, positions and edge features, and equals ``conv(in / groups, out / groups)`` with that group's
weights. Every layer gets there by the general path, one small layer a group. Layers whose propagation treats
channels alike get there faster, by one layer of full width (:mod:`mgic_geo.graph.grouped.fast`).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.nn.inits import reset

from mgic_geo.graph.edge_conv import EdgeConv
from mgic_geo.graph.grouped.build import Builder, construct
from mgic_geo.graph.grouped.fast import build_wide
from mgic_geo.graph.grouped.guards import only_features
from mgic_geo.graph.self_loops import self_loops_of

__all__ = ["FEATURES", "GroupedConv", "grouped", "resolve_conv"]

FEATURES = ("x", "x_0", "x_dict")
"""Arguments of a layer's ``forward`` whose channels fall into groups; all others go to every group whole.

Of a layer that calls its features otherwise, they are the first argument.
"""


def resolve_conv(conv: str | Builder) -> Builder:
    """A layer class from its name: ``"edge"`` for :class:`EdgeConv`, or a name of ``torch_geometric.nn``.

    A class is returned as it is, but for PyG's own EdgeConv, in whose place :class:`EdgeConv` serves.

    Raises:
        ValueError: If no layer has that name, or ``conv`` is a layer and builds none.
    """
    if isinstance(conv, nn.Module) or not (isinstance(conv, str) or callable(conv)):
        remedy = f"give the class: conv={type(conv).__name__}" if isinstance(conv, nn.Module) else "give one"
        raise ValueError(
            f"conv must build a layer for the width of every level: a class, a name or a factory "
            f"conv(in_channels, out_channels), got {conv!r}; {remedy}"
        )
    if conv in ("edge", "EdgeConv") or conv is pyg.EdgeConv:
        return EdgeConv
    if not isinstance(conv, str):
        return conv
    layer = getattr(pyg, conv, None)
    if not (isinstance(layer, type) and issubclass(layer, pyg.MessagePassing)):
        raise ValueError(
            f"a layer is 'edge', or the name of a message-passing layer of torch_geometric.nn such as "
            f"'SAGEConv', got {conv!r}"
        )
    return layer


def grouped(conv: Builder, groups: int) -> Builder:
    r"""A layer class that acts within ``groups`` contiguous channel groups.

    Args:
        conv: A PyG layer class, or a callable ``conv(in_channels, out_channels, **kwargs)``. Networks that a
            layer is given (``GINConv``'s MLP, say) are built; of attention layers with concatenated heads
            ``out_channels`` is the whole output width, and every group has ``heads`` of its own.
        groups: Number of groups.

    Returns:
        ``build(in_channels, out_channels, **kwargs)``, which makes the layer. With more than one group it has
        ``split()``, the small layers it equals.

    Raises:
        ValueError: From ``build``, if ``groups`` does not divide both widths.

    Example:
        >>> from torch_geometric.nn import SAGEConv
        >>> layer = grouped(SAGEConv, 4)(64, 64)
    """

    def build(in_channels: int, out_channels: int, **kwargs: Any) -> nn.Module:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} must divide in_channels={in_channels} and {out_channels=}")
        if conv is EdgeConv:
            return EdgeConv(in_channels, out_channels, groups=groups, **kwargs)
        if groups == 1:
            return construct(conv, in_channels, out_channels, kwargs)
        fast = build_wide(conv, groups, in_channels, out_channels, kwargs)
        return fast or GroupedConv(conv, groups, in_channels, out_channels, **kwargs)

    return build


class GroupedConv(pyg.MessagePassing):
    """The general path: one small layer a group, side by side; right for any layer.

    Args:
        conv: As for :func:`grouped`.
        groups: Number of groups.
        in_channels: Width of the input.
        out_channels: Width of the output.
        **kwargs: Go to every small layer.
    """

    add_self_loops = self_loops_of(lambda self: self.convs)

    def __init__(
        self, conv: Builder, groups: int, in_channels: int, out_channels: int, **kwargs: Any
    ) -> None:
        flow = kwargs.get("flow", "source_to_target")
        super().__init__(aggr=None, flow=flow)  # to_hetero tells a layer on edges by this class
        self.in_channels, self.out_channels = in_channels, out_channels
        small = in_channels // groups, out_channels // groups
        self.convs = nn.ModuleList(construct(conv, *small, kwargs) for _ in range(groups))
        self.arguments = tuple(inspect.signature(self.convs[0].forward).parameters)
        known = {"x", "x_dict"} & {*self.arguments}
        self.features = FEATURES if known else (*FEATURES, *self.arguments[:1])

    def reset_parameters(self) -> None:
        """Draw every group's weights anew."""
        reset(self.convs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the layer's own, at full width.

        Features are (N, in_channels) or, where the layer allows it, a pair or a dictionary of them. The
        groups of an output are joined in the same way.

        Raises:
            ValueError: If the layer returns more than features, such as its attention weights.
        """
        names = (*self.arguments, *[""] * len(args))  # a layer may take any number of further ones
        positional = [self._divide(name, value) for name, value in zip(names, args, strict=False)]
        named = {name: self._divide(name, value) for name, value in kwargs.items()}
        return _join(
            [
                conv(*(value[g] for value in positional), **{name: value[g] for name, value in named.items()})
                for g, conv in enumerate(self.convs)
            ]
        )

    def split(self) -> list[nn.Module]:
        """The small layers, one a group, with copies of the weights."""
        return [copy.deepcopy(conv) for conv in self.convs]

    def split_state(self, state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Cut what has this layer's names, its weights' gradients say, into the small layers'."""
        parts: list[dict[str, Tensor]] = [{} for _ in self.convs]
        for name, value in state.items():
            _, group, rest = name.split(".", 2)
            parts[int(group)][rest] = value
        return parts

    def _divide(self, name: str, value: Any) -> list[Any]:
        """What each group gets of one argument."""
        return _chunk(value, len(self.convs)) if name in self.features else [value] * len(self.convs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.convs)} x {self.convs[0]})"


def _chunk(value: Any, groups: int) -> list[Any]:
    """Features in groups: a tensor, or a pair or dictionary of them, any of which may be None."""
    if isinstance(value, Tensor):
        return list(value.chunk(groups, dim=-1))
    if isinstance(value, Mapping):
        parts = {key: _chunk(item, groups) for key, item in value.items()}
        return [{key: part[g] for key, part in parts.items()} for g in range(groups)]
    if isinstance(value, (tuple, list)):
        return list(zip(*(_chunk(item, groups) for item in value), strict=True))
    return [value] * groups


def _join(outputs: list[Any]) -> Any:
    first = only_features(outputs[0])
    if isinstance(first, Tensor):
        return torch.cat(outputs, dim=-1)
    if isinstance(first, Mapping):
        return {key: _join([out[key] for out in outputs]) for key in first}
    return None
