"""What graph layers in a channel hierarchy share: the cycle, and what its levels get to read."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.inits import reset

from mgic_geo.core import ChannelHierarchy, MGICBlock
from mgic_geo.graph.cycle_native import compiled_cycle
from mgic_geo.graph.edge_inputs import (
    OF_EDGES,
    check_edge_range,
    check_edges,
    check_features,
    index_of,
    of_type,
)
from mgic_geo.graph.edges.propagation import messages_observed
from mgic_geo.graph.graph_block import Factory, Levels
from mgic_geo.graph.grouped import FEATURES
from mgic_geo.graph.neighbors import Neighbors, as_neighbors, compressed, edges_of, flatten_clouds
from mgic_geo.graph.self_loops import keeps_features, self_loops_of
from mgic_geo.graph.shortcut import LazyShortcut, make_shortcut

__all__ = ["GraphCycle"]


class GraphCycle(MessagePassing):
    """Algorithm 1 on a graph, behind a grouped map to the width of its finest level.

    Of a pair (sources, targets) the targets go through the cycle. The sources, which no layer changes, are
    restricted to the width of every level and read there, as is a further feature ``x_0``.

    Args:
        in_channels: Width of the input, or -1 to take it from the first one; a pair for sources and targets.
        hierarchy: Widths and groups of the levels.
        block: ``block(width, groups)`` builds the :class:`GraphBlock` of a level.
        norm: ``norm(width)`` builds the normalisation of a correction.
        transfer_init: See :class:`mgic_geo.Restriction`.
        conv_name: Of the levels' layer, for ``repr``.
        flow: As PyG's.
    """

    _takes_clouds: ClassVar[bool] = True
    """Whether (B, N, C) are dense clouds with a neighbour table; else layers get them as they are."""
    _takes_neighbors = False
    """Whether the levels' layer reads :class:`Neighbors`, which are then made once for all levels."""
    _remedy: ClassVar[str] = ""
    """What to do about a call that levels cannot take."""

    add_self_loops = self_loops_of(lambda self: [block.conv for block in self.cycle.blocks])

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        hierarchy: ChannelHierarchy,
        block: Callable[[int, int], nn.Module],
        norm: Factory,
        transfer_init: str,
        conv_name: str,
        flow: str,
    ) -> None:
        super().__init__(aggr=None, flow=flow)  # to_hetero and others tell a layer on edges by this class
        self.in_channels, self.out_channels, self.hierarchy = in_channels, hierarchy.channels, hierarchy
        self.conv_name = conv_name
        source, target = in_channels if isinstance(in_channels, tuple) else (None, in_channels)
        self.shortcut = self._make_shortcut(target)
        self.source_shortcut = None if source is None else self._make_shortcut(source)
        self.cycle = MGICBlock(hierarchy, block, norm=norm, transfer_init=transfer_init)
        if keeps_features(self.cycle):
            raise ValueError(
                f"{conv_name} with cached=True keeps the features of its first call, but those of a level "
                "come from learned maps and change with every step; leave cached out"
            )
        # The coarsest level's layer is the plain one: what it takes after x, by position.
        coarsest: nn.Module = self.cycle.blocks[-1].conv  # type: ignore[assignment]
        self.arguments = tuple(inspect.signature(coarsest.forward).parameters)[1:]

    def _make_shortcut(self, in_channels: int) -> nn.Module:
        return make_shortcut(in_channels, self.out_channels, self.hierarchy.group_size)

    @property
    def num_hops(self) -> int:
        """How far an output looks: every level passes messages along one edge."""
        return self.hierarchy.coarsenings + 1

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for part in (self.shortcut, self.source_shortcut, self.cycle):
            reset(part)

    def forward(self, x: Tensor | tuple[Tensor, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Run the cycle on a graph; all that follows ``x`` is what the layer's own ``forward`` takes."""
        if kwargs.pop("return_attention_weights", None):
            raise ValueError(
                f"{type(self).__name__} has no attention weights to return, as every level and group has its "
                "own; leave return_attention_weights out, or call the layers of cycle.blocks"
            )
        source, x = self._sides(x)
        cloud = self._takes_clouds and x.dim() == 3

        def ready(name: str, value: Any) -> Any:
            """One argument as the layers of all levels take it."""
            if name == "edge_index":
                return self._graph(value, x, source)
            if name in OF_EDGES:
                return of_type(name, value, x)
            if isinstance(value, Tensor) and cloud and name in ("pos", "normal", "x_0"):
                value = value.flatten(0, 1)
            return self._restricted(value, self.shortcut) if name in FEATURES else value

        names = (*self.arguments, *[""] * len(args))  # a layer may take any number of further ones
        args = tuple(ready(name, value) for name, value in zip(names, args, strict=False))
        kwargs = {name: ready(name, value) for name, value in kwargs.items()}
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        check_edges(inputs)
        read = None if source is None else self._restricted(source, self.source_shortcut or self.shortcut)
        flat = x.flatten(0, 1) if cloud else x
        fast = self._compiled(flat, read, args, kwargs)
        if fast is not None:
            return fast.view(*x.shape[:-1], self.out_channels)
        mapped = self.shortcut(flat)
        try:
            out = self.cycle(mapped, read, *args, **kwargs)
        except (IndexError, RuntimeError, ValueError):
            sources = mapped if source is None else source
            check_edge_range(inputs.get("edge_index"), sources.size(-2), mapped.size(-2), self.flow)
            raise
        except AssertionError as error:  # so PyG's layers check shapes, mostly without a word
            raise ValueError(
                f"{self.conv_name} refused its arguments on a level: {str(error) or 'an assertion failed'}; "
                "what must be as wide as the features of nodes, those of edges say, fits one level only"
                f"{self._remedy or ', so give edge_dim=... where the layer has it'}"
            ) from error
        return out.view(*x.shape[:-1], self.out_channels)

    def _compiled(
        self, x: Tensor, source: Levels | None, args: tuple[Any, ...], kwargs: Any
    ) -> Tensor | None:
        """Shortcut and cycle as one step; None where there is none for them."""
        if source is None and len(args) == 1 and isinstance(args[0], Neighbors) and not kwargs:
            return compiled_cycle(self.shortcut, self.cycle, x, args[0])
        return None

    def _sides(self, x: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor | None, Tensor]:
        """Sources, if they are not the targets, and targets, with the widths they should have."""
        wanted = self.in_channels
        if not isinstance(x, tuple | list):
            source, target = (x, x) if isinstance(wanted, tuple) else (None, x)
        elif len(x) == 2 and x[1] is not None:
            source, target = x
        else:
            raise ValueError(
                f"{type(self).__name__} adds to the features of the targets, so a pair is (sources, "
                f"targets), got {'no targets' if len(x) == 2 else f'{len(x)} parts'}{self._remedy}"
            )
        widths = wanted if isinstance(wanted, tuple) else (wanted, wanted)
        for side, width in zip((source, target), widths, strict=True):
            if side is not None:
                clouds = source is None or source is target
                check_features(side, width, clouds=clouds, stacked=not self._takes_clouds)
        if wanted == -1 and source is not None and source.size(-1) != target.size(-1):
            raise ValueError(
                f"in_channels=-1 is one width, got sources of {source.size(-1)} channels and targets of "
                f"{target.size(-1)}; build the layer with in_channels=(-1, -1)"
            )
        if isinstance(self.shortcut, LazyShortcut) or isinstance(self.source_shortcut, LazyShortcut):
            self._settle(source, target)
        return source, target

    def _settle(self, source: Tensor | None, target: Tensor) -> None:
        """Take the widths that are not known yet from the first input."""
        if isinstance(self.shortcut, LazyShortcut):
            self.shortcut = self.shortcut.settle(target.size(-1))
        if isinstance(self.source_shortcut, LazyShortcut) and source is not None:
            self.source_shortcut = self.source_shortcut.settle(source.size(-1))
        if isinstance(self.in_channels, tuple) and source is not None:
            first = source.size(-1) if self.in_channels[0] == -1 else self.in_channels[0]
            second = target.size(-1) if self.in_channels[1] == -1 else self.in_channels[1]
            self.in_channels = (first, second)
        else:
            self.in_channels = target.size(-1)

    def _graph(self, graph: Any, x: Tensor, source: Tensor | None) -> Any:
        """The graph as the layer takes it; what can be worked out once for all levels is."""
        if self._takes_clouds and x.dim() == 3:
            graph = flatten_clouds(x, graph)[1]
        if type(graph) is Tensor and graph.dtype in (torch.int32, torch.int64):
            graph = index_of(graph)
        if self._takes_neighbors:
            if any(messages_observed(block.conv) for block in getattr(self.cycle, "blocks", ())):
                return graph  # an explainer's mask has the edges in the order that they are given in
            sources = x.numel() // x.size(-1) if source is None else source.size(0)
            return as_neighbors(graph, x.numel() // x.size(-1), sources, self.flow)
        return edges_of(graph, self.flow) if isinstance(graph, Neighbors) else compressed(graph)

    def _restricted(self, x: Tensor, shortcut: nn.Module) -> Levels:
        """Features that are only read, at the width of every level."""
        levels = [shortcut(x)]
        for restrict in self.cycle.restrictions:
            levels.append(restrict(levels[-1]))
        return Levels(tuple(levels))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, conv={self.conv_name}, "
            f"{self.hierarchy})"
        )
