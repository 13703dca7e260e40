"""Message-passing layers that act within channel groups.

One definition: output group g of ``grouped(conv, groups)(in, out)`` depends on input group g only, and
on the graph, and equals ``conv(in / groups, out / groups)`` with that group's weights. Every layer gets
there by the general path, one small layer a group. Layers whose propagation treats channels alike get
there faster: one layer of full width whose linear maps are grouped, so one propagation for all groups.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric.nn import MLP, GATv2Conv, GCNConv, GINConv, GraphConv, SAGEConv
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import reset

from mgic_geo.core.pointwise import GroupedLinear
from mgic_geo.graph.edge_conv import EdgeConv

__all__ = ["GroupedConv", "grouped", "resolve_conv"]

Builder = Callable[..., nn.Module]


def resolve_conv(conv: str | Builder) -> Builder:
    """A layer class from its name: ``"edge"`` for :class:`EdgeConv`, or a name of ``torch_geometric.nn``.

    A class is returned as it is, but for PyG's own EdgeConv, in whose place :class:`EdgeConv` serves.

    Raises:
        ValueError: If no layer has that name.
    """
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
        conv: A PyG layer class called as ``conv(in_channels, out_channels, **kwargs)``; or ``GINConv``, whose
            MLP is then built; or attention layers, whose ``out_channels`` is here the whole output width.
        groups: Number of groups.

    Returns:
        ``build(in_channels, out_channels, **kwargs)``, which makes the layer.

    Raises:
        ValueError: From ``build``, if ``groups`` does not divide both widths.

    Example:
        >>> from torch_geometric.nn import SAGEConv
        >>> layer = grouped(SAGEConv, 4)(64, 64)
    """

    def build(in_channels: int, out_channels: int, **kwargs: Any) -> nn.Module:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} must divide in_channels={in_channels} and {out_channels=}")
        if groups == 1:
            return _construct(conv, in_channels, out_channels, kwargs)
        fast = _FAST.get(conv)
        layer = fast(groups, in_channels, out_channels, kwargs) if fast else None
        return layer or GroupedConv(conv, groups, in_channels, out_channels, **kwargs)

    return build


class GroupedConv(nn.Module):
    """The general path: one small layer a group, side by side; right for any layer.

    Args:
        conv: As for :func:`grouped`.
        groups: Number of groups.
        in_channels: Width of the input.
        out_channels: Width of the output.
        **kwargs: Go to every small layer.
    """

    def __init__(
        self, conv: Builder, groups: int, in_channels: int, out_channels: int, **kwargs: Any
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        small = in_channels // groups, out_channels // groups
        self.convs = nn.ModuleList(_construct(conv, *small, kwargs) for _ in range(groups))

    def reset_parameters(self) -> None:
        """Draw every group's weights anew."""
        reset(self.convs)

    def forward(self, x: Tensor | tuple[Tensor, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """As the layer's own; ``x`` is (N, in_channels) or, where the layer allows it, a pair."""
        groups = len(self.convs)
        if isinstance(x, Tensor):
            parts = x.chunk(groups, dim=-1)
        else:
            parts = zip(*(side.chunk(groups, dim=-1) for side in x), strict=True)
        return torch.cat(
            [conv(part, *args, **kwargs) for conv, part in zip(self.convs, parts, strict=True)], -1
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.convs)} x {self.convs[0]})"


# How a layer is built from two widths, where it is not conv(in_channels, out_channels, **kwargs).


def _construct(conv: Builder, in_channels: int, out_channels: int, kwargs: dict[str, Any]) -> nn.Module:
    return _CONSTRUCT.get(conv, _plain)(conv, in_channels, out_channels, dict(kwargs))


def _plain(conv: Builder, in_channels: int, out_channels: int, kwargs: dict[str, Any]) -> nn.Module:
    return conv(in_channels, out_channels, **kwargs)


def _gin(conv: Builder, in_channels: int, out_channels: int, kwargs: dict[str, Any]) -> nn.Module:
    if "nn" in kwargs:
        raise ValueError("GINConv's nn depends on each level's width, so it is built here: leave nn out")
    return conv(MLP([in_channels, out_channels, out_channels], norm=None), **kwargs)


def _attention(conv: Builder, in_channels: int, out_channels: int, kwargs: dict[str, Any]) -> nn.Module:
    heads = kwargs.get("heads", 1)
    if kwargs.get("concat", True):
        if out_channels % heads:
            raise ValueError(
                f"heads={heads} must divide the width of a group, {out_channels} channels here; "
                "choose fewer heads, larger groups, or concat=False"
            )
        out_channels //= heads
    return conv(in_channels, out_channels, **kwargs)


_CONSTRUCT: dict[Builder, Callable[..., nn.Module]] = {GINConv: _gin, GATv2Conv: _attention}


# Fast paths: builders (groups, in_channels, out_channels, kwargs) -> layer, or None where the options mix
# the channels of different groups, so that only the general path is right.


class _GroupedMap(GroupedLinear):
    """Takes the place of a layer's linear map; each group starts as that map would at a group's size."""

    def __init__(self, linear: Linear, groups: int) -> None:
        self._small = partial(
            Linear,
            linear.in_channels // groups,
            linear.out_channels // groups,
            bias=linear.bias is not None,
            weight_initializer=linear.weight_initializer,
            bias_initializer=linear.bias_initializer,
        )
        super().__init__(linear.in_channels, linear.out_channels, groups, bias=linear.bias is not None)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        small = [self._small() for _ in range(self.groups)]
        self.weight.copy_(torch.cat([linear.weight for linear in small]))
        if self.bias is not None:
            self.bias.copy_(torch.cat([linear.bias for linear in small]))


def _regroup(layer: nn.Module, groups: int, *names: str) -> nn.Module:
    """Give the named linear maps of ``layer`` (dotted paths) groups; shared ones stay shared."""
    made: dict[nn.Module, nn.Module] = {}
    for name in names:
        linear = cast(Linear, layer.get_submodule(name))
        if linear not in made:
            made[linear] = _GroupedMap(linear, groups)
        layer.set_submodule(name, made[linear])
    return layer


def _channelwise(kwargs: dict[str, Any]) -> bool:
    """Whether the aggregation treats every channel by itself."""
    return kwargs.get("aggr", "mean") in ("add", "sum", "mean", "max", "min", "mul")


def _fast_gcn(groups: int, width_in: int, width_out: int, kwargs: dict[str, Any]) -> nn.Module | None:
    if not _channelwise(kwargs):
        return None
    return _regroup(GCNConv(width_in, width_out, **kwargs), groups, "lin")


def _fast_sage(groups: int, width_in: int, width_out: int, kwargs: dict[str, Any]) -> nn.Module | None:
    if kwargs.get("normalize") or not _channelwise(kwargs):
        return None
    layer = SAGEConv(width_in, width_out, **kwargs)
    names = ["lin_l", *(["lin_r"] if layer.root_weight else []), *(["lin"] if layer.project else [])]
    return _regroup(layer, groups, *names)


def _fast_graph_conv(groups: int, width_in: int, width_out: int, kwargs: dict[str, Any]) -> nn.Module | None:
    if not _channelwise(kwargs):
        return None
    return _regroup(GraphConv(width_in, width_out, **kwargs), groups, "lin_rel", "lin_root")


def _fast_gin(groups: int, width_in: int, width_out: int, kwargs: dict[str, Any]) -> nn.Module | None:
    if kwargs.get("train_eps") or not _channelwise(kwargs):
        return None
    return _regroup(_construct(GINConv, width_in, width_out, kwargs), groups, "nn.lins.0", "nn.lins.1")


def _fast_gatv2(groups: int, width_in: int, width_out: int, kwargs: dict[str, Any]) -> nn.Module | None:
    if not kwargs.get("concat", True) or not _channelwise(kwargs):
        return None
    heads = kwargs.get("heads", 1)
    if width_out // groups % heads:
        return None  # the general path says what is wrong
    kwargs = {**kwargs, "heads": groups * heads}
    layer = GATv2Conv(width_in, width_out // (groups * heads), **kwargs)
    return _regroup(layer, groups, "lin_l", "lin_r", *(["res"] if layer.res is not None else []))


def _fast_edge_conv(groups: int, width_in: int, width_out: int, kwargs: dict[str, Any]) -> nn.Module:
    return EdgeConv(width_in, width_out, groups=groups, **kwargs)


_FAST: dict[Builder, Callable[..., nn.Module | None]] = {
    EdgeConv: _fast_edge_conv,
    GATv2Conv: _fast_gatv2,
    GCNConv: _fast_gcn,
    GINConv: _fast_gin,
    GraphConv: _fast_graph_conv,
    SAGEConv: _fast_sage,
}
