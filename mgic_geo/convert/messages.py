"""PyG's message-passing layers inside the hierarchy, without normalisation and activation of their own."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from mgic_geo.convert.arguments import Arguments, built, read_arguments
from mgic_geo.convert.calls import Call, mismatch, shortened
from mgic_geo.convert.forms import Build, Sizes, match_placement
from mgic_geo.convert.project import gaussian
from mgic_geo.core import ChannelHierarchy, GroupedLinear
from mgic_geo.core.linear import keep_scale_
from mgic_geo.graph.graph_block import GraphBlock
from mgic_geo.graph.graph_cycle import GraphCycle
from mgic_geo.graph.grouped.fast import WideConv
from mgic_geo.graph.self_loops import forget_graphs, keeps_features

__all__ = ["MGICMessagePassing", "message_form"]


class MGICMessagePassing(GraphCycle):
    r"""A PyG layer, its dense channel coupling replaced by Algorithm 1, to stand where the layer stood.

    Each level is the bare layer, grouped on all but the coarsest; what a model has behind the layer, its
    activation say, follows. :class:`mgic_geo.MGICGraphConv` is the block to build new models of, with
    residual, normalisation and activation on every level; this is what :func:`mgic_geo.replace_convs` puts
    into a model that has its own. A change of width comes first, by a grouped pointwise map. Of a pair
    (sources, targets) the targets go through the cycle, and the sources, which no layer changes, are
    restricted to the width of every level and read there, as in :class:`mgic_geo.MGICGraphConv`.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        arguments: The layer's class and its arguments but the widths.
        group_size: Largest number of channels in a group, :math:`s_g`.
        coarse_size: Largest width of the coarsest, fully coupled level, :math:`s_c`.
        min_levels: Coarsen at least this many times.

    Shapes:
        - x: (N, in_channels), or a pair of them where the layer takes pairs; then what else it takes: a
          graph, edge weights, ...;
        - output: like ``x``, or the targets, with ``out_channels``.

    Raises:
        ValueError: On impossible sizes, if ``x`` is a pair without targets, or on what
            :class:`mgic_geo.MGICGraphConv` refuses.
    """

    _takes_clouds = False  # PyG's layers take (..., N, C) as so many features of the same nodes
    _remedy = "; leave this layer unconverted (match=...)"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        arguments: Arguments,
        group_size: int = 32,
        coarse_size: int = 64,
        min_levels: int = 0,
    ) -> None:
        super().__init__(
            in_channels,
            ChannelHierarchy(out_channels, group_size, coarse_size, min_levels),
            lambda width, groups: GraphBlock(
                built(arguments, width, width, groups), nn.Identity(), nn.Identity(), residual=False
            ),
            norm=lambda width: nn.Identity(),
            transfer_init="signed",
            conv_name=arguments.conv.__name__,
            flow=arguments.kwargs.get("flow", "source_to_target"),
        )
        self._start_small()

    def _make_shortcut(self, in_channels: int) -> nn.Module:
        shortcut = super()._make_shortcut(in_channels)
        if isinstance(shortcut, GroupedLinear):
            keep_scale_(shortcut.weight)
        return shortcut

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        if isinstance(self.shortcut, GroupedLinear):
            keep_scale_(self.shortcut.weight)
        self.cycle.reset_parameters()
        self._start_small()

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """As the layer's own ``forward``, whatever the name of its first argument, the features."""
        if not args and "x" not in kwargs:
            coarsest: nn.Module = self.cycle.blocks[-1].conv  # type: ignore[assignment]
            first = next(iter(inspect.signature(coarsest.forward).parameters))
            args = (kwargs.pop(first),) if first in kwargs else ()
        return super().forward(*args, **kwargs)

    @torch.no_grad()
    def _start_small(self) -> None:
        """Scale prolongations: corrections start at half the size of features, whatever a layer's gain.

        Sums over neighbours make features many times as large, in every level anew. What PyG's layers do with
        their weights nobody knows, so the corrections are seen, on random features and a random graph; those
        of a layer that takes more than these keep their start.
        """

        def shrink(prolong: nn.Module, _: Any, out: Tensor) -> Tensor:
            factor = 0.5 / out.square().mean().sqrt().clamp_min(1e-12)
            prolong.map.weight.mul_(factor)  # type: ignore[operator, union-attr]
            return out * factor

        weights: list[Tensor] = [prolong.map.weight for prolong in self.cycle.prolongations]  # type: ignore[misc, union-attr]
        if not weights or weights[0].is_meta:
            return
        start, training = [weight.clone() for weight in weights], self.training
        hooks = [prolong.register_forward_hook(shrink) for prolong in self.cycle.prolongations]
        try:
            self.eval()(*gaussian(self, self))
        except Exception:  # whatever a forward raises that misses its arguments
            for weight, before in zip(weights, start, strict=True):
                weight.copy_(before)
        finally:
            self.train(training)
            forget_graphs(self)
            for hook in hooks:
                hook.remove()


def message_form(conv: MessagePassing, calls: Collection[Call] = ()) -> Build | str:
    """How to build a PyG layer's MGIC form, which runs on ``calls`` as that does, or why there is none."""
    if hasattr(conv, "get_attention_loss"):
        return "its attention loss, which training reads, would be lost"
    read = read_arguments(conv)
    if isinstance(read, str):
        return read
    width_in, width_out, arguments = read

    def build(sizes: Sizes) -> nn.Module | str:
        if reason := sizes.too_narrow(width_in, width_out):
            return reason
        try:
            new = MGICMessagePassing(width_in, width_out, _uncached(arguments, conv), **vars(sizes))
        except Exception as error:  # whatever a constructor raises
            return f"it could not be built at other widths: {shortened(error)}"
        new = match_placement(new, conv)
        finest = new.cycle.blocks[0].conv  # type: ignore[union-attr]
        finest = finest.layer if isinstance(finest, WideConv) else finest
        mine, theirs = getattr(finest, "bias", None), getattr(conv, "bias", None)
        if isinstance(mine, Tensor) and isinstance(theirs, Tensor) and mine.shape == theirs.shape:
            with torch.no_grad():
                mine.copy_(theirs)
        return mismatch(new, conv, width_in, calls) or new

    return build


def _uncached(arguments: Arguments, conv: MessagePassing) -> Arguments:
    """The arguments without ``cached``, if the layer keeps features: those of levels are learned."""
    if not keeps_features(conv):
        return arguments
    warnings.warn(
        f"{arguments.conv.__name__}(cached=True) is converted with cached=False: what it would keep of the "
        "first call are features, and those of a level come from learned maps",
        stacklevel=2,
    )
    return replace(arguments, kwargs={**arguments.kwargs, "cached": False})
