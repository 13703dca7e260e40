"""Layers whose groups run side by side in one layer: one grouped product a linear map, one propagation.

Adding a layer is a line in ``FAST``. Which maps to group, what they read and how the weights fall into groups
is told from the shapes of the layer at full width beside the layer at one group's width; a line says only
what shapes do not show. A layer that then shares a learned number between groups keeps to the general path.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric import nn as pyg

from mgic_geo.graph.edges.linear_propagation import linear_form
from mgic_geo.graph.edges.scatter import use_fast_aggregation
from mgic_geo.graph.grouped import attention, film_gen_gine, nodewise, tensor_weights
from mgic_geo.graph.grouped.build import Builder, construct
from mgic_geo.graph.grouped.grouped_map import group_maps
from mgic_geo.graph.grouped.guards import channelwise, only_features, pointwise
from mgic_geo.graph.grouped.nn_conv import GroupedNN
from mgic_geo.graph.grouped.pna_conv import NodewisePNA
from mgic_geo.graph.grouped.state import join_states, separable, split_state
from mgic_geo.graph.neighbors import compressed
from mgic_geo.graph.self_loops import forget_graphs, self_loops_of

__all__ = ["FAST", "Rule", "WideConv", "build_wide"]

Options = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """How a layer runs in groups, where shapes do not tell."""

    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Values of options that keep the groups apart; with others the general path serves."""
    heads: bool = False
    """Whether it has attention heads: every group gets its own, side by side."""
    parts: Callable[[Options], dict[str, tuple[int, int]]] = lambda options: {}
    """Of which maps the input or output has several parts, see :class:`GroupedMap`."""
    form: Builder | None = None
    """A class to build in place of the layer's, with the same arguments."""
    blocks: Builder | None = None
    """A class to build with ``groups`` before the layer's own arguments, where weights are plain tensors."""

    def allows(self, options: Options) -> bool:
        """Whether the options, as far as shapes do not tell, keep the groups apart.

        In the other flow PyG's two propagations, of which forms have one, pick different sides of a pair.
        """
        return (
            all(options[name] in allowed for name, allowed in self.only.items() if name in options)
            and options.get("flow", "source_to_target") == "source_to_target"
            and channelwise(options.get("aggr"))
            and all(channelwise(name) for name in options.get("aggregators", ()))
            and pointwise(options.get("act"))
        )


_PLAIN = Rule()
_CONCATENATED = {"concat": (True,)}


def _linear(conv: type[pyg.MessagePassing], **options: Any) -> Rule:
    """Of a layer whose messages are linear in the sources."""
    return Rule(form=linear_form(conv), **options)


def _pna_parts(options: Options) -> dict[str, tuple[int, int]]:
    aggregated = len(options["aggregators"]) * len(options["scalers"])
    return {
        "pre_nns.*.0": (3 if options.get("edge_dim") else 2, 1),
        "post_nns.*.0": (1 + aggregated, 1),
        "lin": (options.get("towers", 1), 1),
    }


def _averaged_heads(options: Options) -> dict[str, tuple[int, int]]:
    return {name: (1, options.get("heads", 1)) for name in ("lin_msg", "lin_msg_i", "lin_edge")}


FAST: dict[Builder, Rule] = {
    pyg.APPNP: _linear(pyg.APPNP, only={"dropout": (0,)}),  # one mask would serve all groups
    pyg.ARMAConv: Rule(blocks=tensor_weights.GroupedARMA),
    pyg.CGConv: Rule(form=nodewise.NodewiseCG, parts=lambda _: {"lin_[fs]": (2, 1)}),
    pyg.ChebConv: _linear(pyg.ChebConv),
    pyg.ClusterGCNConv: _linear(pyg.ClusterGCNConv),
    pyg.EdgeConv: Rule(form=nodewise.NodewiseEdge, parts=lambda _: {"nn.lins.0": (2, 1)}),
    pyg.FiLMConv: Rule(
        form=film_gen_gine.LiftedFiLM, parts=lambda _: {"films.*": (1, 2), "film_skip": (1, 2)}
    ),
    pyg.GATConv: Rule(form=attention.NodewiseGAT, only=_CONCATENATED, heads=True),
    pyg.GATv2Conv: Rule(form=attention.NodewiseGATv2, only=_CONCATENATED, heads=True),
    pyg.GCN2Conv: Rule(blocks=tensor_weights.GroupedGCN2),
    pyg.GCNConv: _linear(pyg.GCNConv),
    pyg.GENConv: Rule(only={"norm": ("batch", None), "msg_norm": (False,)}, form=film_gen_gine.TiledGEN),
    pyg.GINConv: _linear(pyg.GINConv),
    pyg.GINEConv: Rule(form=film_gen_gine.TiledGINE),
    pyg.GatedGraphConv: Rule(blocks=tensor_weights.GroupedGatedGraph),
    pyg.GeneralConv: Rule(
        form=nodewise.NodewiseGeneral,
        only={"attention": (False,), "l2_normalize": (False,)},
        parts=_averaged_heads,
    ),
    pyg.GraphConv: _linear(pyg.GraphConv),
    pyg.HypergraphConv: _linear(pyg.HypergraphConv, only={"use_attention": (False,)}),
    pyg.LEConv: _linear(pyg.LEConv),
    pyg.LGConv: _linear(pyg.LGConv),
    pyg.MFConv: _linear(pyg.MFConv),
    pyg.NNConv: Rule(blocks=GroupedNN),
    pyg.PNAConv: Rule(form=NodewisePNA, only={"divide_input": (False,)}, parts=_pna_parts),
    pyg.PPFConv: Rule(form=nodewise.NodewisePPF),
    pyg.PointNetConv: Rule(form=nodewise.NodewisePointNet),
    pyg.PointTransformerConv: Rule(form=attention.NodewisePointTransformer, only={"attn_nn": (None,)}),
    pyg.ResGatedGraphConv: Rule(form=nodewise.NodewiseResGated),
    pyg.SAGEConv: _linear(pyg.SAGEConv, only={"normalize": (False,)}),
    pyg.SGConv: _linear(pyg.SGConv),
    pyg.SSGConv: _linear(pyg.SSGConv),
    pyg.SimpleConv: _linear(pyg.SimpleConv, only={"combine_root": ("sum", "self_loop", None)}),
    pyg.TAGConv: _linear(pyg.TAGConv),
    pyg.TransformerConv: Rule(
        form=attention.NodewiseTransformer, only={**_CONCATENATED, "beta": (False,)}, heads=True
    ),
    pyg.WLConvContinuous: _linear(pyg.WLConvContinuous),
}


class WideConv(pyg.MessagePassing):
    """The fast path: all groups in one layer of full width.

    Args:
        layer: That layer, still without values.
        conv: The layer's class, as for :func:`mgic_geo.grouped`.
        groups: Number of groups.
        in_channels: Width of the input.
        out_channels: Width of the output.
        options: The layer's other arguments.
    """

    add_self_loops = self_loops_of(lambda self: [self.layer])

    def __init__(
        self,
        layer: nn.Module,
        conv: Builder,
        groups: int,
        in_channels: int,
        out_channels: int,
        options: Options,
    ) -> None:
        flow = options.get("flow", "source_to_target")
        super().__init__(aggr=None, flow=flow)  # to_hetero tells a layer on edges by this class
        self.conv, self.groups, self.options = conv, groups, copy.deepcopy(options)
        self.in_channels, self.out_channels = in_channels, out_channels
        first = self._small()
        tensors = [*first.state_dict().values(), torch.empty(0)]
        self.layer = layer.to_empty(device=tensors[0].device)
        self._start([first, *(self._small() for _ in range(groups - 1))])
        self._small_repr = repr(first)

    def reset_parameters(self) -> None:
        """Draw the weights anew, in every group as a layer of the group's width does."""
        self._start([self._small() for _ in range(self.groups)])

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the layer's own, at full width.

        Raises:
            ValueError: If the layer returns more than features, such as its attention weights.
        """
        named = {name: compressed(value) for name, value in kwargs.items()}
        return only_features(self.layer(*map(compressed, args), **named))

    def split(self) -> list[nn.Module]:
        """The small layers that this one equals, one a group, with copies of its weights."""
        state, parts = self.layer.state_dict(), []
        for values in self.split_state({f"layer.{name}": value for name, value in state.items()}):
            small = self._small()
            small.load_state_dict(values)
            if hasattr(small, "add_self_loops"):
                small.add_self_loops = self.add_self_loops  # may have been set since it was built
            parts.append(small.to(next(iter(values.values()), torch.empty(0))).train(self.training))
        return parts

    def split_state(self, state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Cut what has this layer's names and shapes, its weights' gradients say, into the small layers'."""
        small = self._small().state_dict()
        plain = {name.removeprefix("layer."): value for name, value in state.items()}
        return split_state(plain, small, self.groups)

    def _small(self) -> nn.Module:
        return construct(
            self.conv, self.in_channels // self.groups, self.out_channels // self.groups, self.options
        )

    def _start(self, small: list[nn.Module]) -> None:
        states = [layer.state_dict() for layer in small]
        self.layer.load_state_dict(join_states(states, self.layer.state_dict()))
        forget_graphs(self.layer)  # what a layer caches belongs to the weights it had

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.groups} x {self._small_repr})"


def build_wide(
    conv: Builder, groups: int, in_channels: int, out_channels: int, options: Options
) -> WideConv | None:
    """All groups of ``conv`` in one layer, or None where only the general path is right.

    Raises:
        ValueError: As :func:`construct`, for the layer of one group.
    """
    rule = FAST.get(conv)
    if rule is None or not rule.allows(options):
        return None
    with torch.device("meta"):  # shapes alone: a dense layer of full width may be far larger than its blocks
        small = construct(conv, in_channels // groups, out_channels // groups, options)
        layer = _widen(rule, conv, groups, in_channels, out_channels, options)
    parts = rule.parts(options)
    with torch.device("meta"):
        grouped = group_maps(layer, small, groups, parts) and separable(layer, small, groups)
    if not grouped:
        return None
    return WideConv(use_fast_aggregation(layer), conv, groups, in_channels, out_channels, options)


def _widen(
    rule: Rule, conv: Builder, groups: int, in_channels: int, out_channels: int, options: Options
) -> nn.Module:
    """The layer at full width."""
    if rule.blocks is not None:
        return construct(partial(rule.blocks, groups), in_channels, out_channels, options)
    heads = {"heads": groups * options.get("heads", 1)} if rule.heads else {}
    return construct(rule.form or conv, in_channels, out_channels, options, **heads)
