"""Message-passing layers whose channels are coupled by a multigrid cycle."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing, SAGEConv
from torch_geometric.nn.inits import reset

from mgic_geo.core import ChannelHierarchy, MGICBlock
from mgic_geo.graph.activation import Act, resolve_act
from mgic_geo.graph.cycle_native import compiled_cycle
from mgic_geo.graph.edge_conv import EdgeConv
from mgic_geo.graph.edge_inputs import (
    OF_EDGES,
    check_edge_range,
    check_edges,
    check_features,
    index_of,
    of_type,
)
from mgic_geo.graph.edges.propagation import messages_observed
from mgic_geo.graph.graph_block import Factory, GraphBlock, Levels, norm_factory
from mgic_geo.graph.grouped import FEATURES, grouped, resolve_conv
from mgic_geo.graph.knn import check_backend, check_k, knn, knn_table
from mgic_geo.graph.neighbors import Neighbors, as_neighbors, compressed, edges_of, flatten_clouds
from mgic_geo.graph.shortcut import LazyShortcut, make_shortcut

__all__ = ["MGICDynamicEdgeConv", "MGICGraphConv"]


class MGICGraphConv(MessagePassing):
    r"""Any PyG message-passing layer, its dense channel coupling replaced by Algorithm 1 of the paper.

    Every level of the channel hierarchy runs :math:`x + \sigma(\mathcal{N}(\mathrm{conv}(x)))` on the same
    graph, grouped on all but the coarsest: channels coarsen, points do not. Parameters and multiply-adds grow
    linearly with the width at fixed ``group_size`` and ``coarse_size``. A change of width comes first, by a
    grouped pointwise map. Normalisation, activation and residual are inside: add none behind the layer.

    Of a bipartite pair (sources, targets) the targets go through the cycle. The sources, which no layer
    changes, are restricted to the width of every level and read there, as is a further feature ``x_0``.

    Args:
        in_channels: Width of the input, or -1 to take it from the first one; a pair of widths for sources and
            targets of different kinds.
        out_channels: Width of the output.
        conv: A PyG layer, class or name, called as ``conv(width, width, **conv_kwargs)``. :class:`EdgeConv`
            runs without its own normalisation and activation: those of the block follow it.
        group_size: Largest number of channels in a group, :math:`s_g`.
        coarse_size: Largest width of the coarsest, fully coupled level, :math:`s_c`.
        act: Activation of the blocks: a name of PyG's resolver, a module without parameters, a class of
            modules (each block gets its own), a function, or None.
        norm: Normalisation of blocks and corrections: ``"batch_norm"``, ``"layer_norm"``, a factory
            ``norm(width)`` of a module on (N, width), or None.
        min_levels: Coarsen at least this many times.
        transfer_init: ``"random"``, ``"average"`` or ``"signed"``, see :class:`mgic_geo.Restriction`.
        correction_norm: Normalisation of the corrections alone, if not that of ``norm``.
        act_first: Activate before the normalisation.
        **conv_kwargs: Go to the layer of every level.

    Shapes:
        - x: (N, in_channels) or a pair of them; what follows is what the layer's own ``forward`` takes;
        - also dense clouds (B, N, in_channels) with a (B, N, k) neighbour table;
        - output: like ``x``, or the targets, with ``out_channels``.

    Raises:
        ValueError: On impossible sizes, a ``conv`` or ``norm`` that is a module and builds none, an ``x`` of
            another width, edge weights or features of another number of edges, an edge index outside the
            nodes, a layer that changes the shape of the features, or if attention weights are asked for: each
            level has its own.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        conv: str | Callable[..., nn.Module] = SAGEConv,
        group_size: int = 16,
        coarse_size: int = 32,
        act: Act = "relu",
        norm: str | Factory | None = "batch_norm",
        min_levels: int = 0,
        transfer_init: str = "random",
        correction_norm: str | Factory | None = "norm",
        act_first: bool = False,
        **conv_kwargs: Any,
    ) -> None:
        flow = conv_kwargs.get("flow", "source_to_target")
        super().__init__(aggr=None, flow=flow)  # to_hetero and others tell a layer on edges by this class
        conv = resolve_conv(conv)
        self.in_channels, self.out_channels = in_channels, out_channels
        # A factory that is kept, a lambda say, would keep the layer from being pickled.
        self.conv_name, self._takes_neighbors = getattr(conv, "__name__", str(conv)), conv is EdgeConv
        hierarchy = ChannelHierarchy(out_channels, group_size, coarse_size, min_levels)
        self.hierarchy = hierarchy
        norm = norm_factory(norm)
        of_corrections = norm if correction_norm == "norm" else norm_factory(correction_norm)
        if conv is EdgeConv:
            conv_kwargs = {"norm": None, "act": None, **conv_kwargs}

        def block(width: int, groups: int) -> nn.Module:
            layer = grouped(conv, groups)(width, width, **conv_kwargs)
            return GraphBlock(layer, norm(width), resolve_act(act), hierarchy.widths.index(width), act_first)

        source, target = in_channels if isinstance(in_channels, tuple) else (None, in_channels)
        self.shortcut = make_shortcut(target, out_channels, group_size)
        self.source_shortcut = None if source is None else make_shortcut(source, out_channels, group_size)
        self.cycle = MGICBlock(hierarchy, block, norm=of_corrections, transfer_init=transfer_init)
        # The coarsest level's layer is the plain one: what it takes after x, by position.
        coarsest: nn.Module = self.cycle.blocks[-1].conv  # type: ignore[assignment]
        self.arguments = tuple(inspect.signature(coarsest.forward).parameters)[1:]

    @property
    def hops(self) -> int:
        """How far an output looks: every level passes messages along one edge."""
        return self.hierarchy.coarsenings + 1

    @property
    def add_self_loops(self) -> bool:
        """Whether the layer adds them; PyG's ``to_hetero`` asks."""
        return bool(getattr(self.cycle.blocks[-1].conv, "add_self_loops", False))

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
        cloud = x.dim() == 3

        def ready(name: str, value: Any) -> Any:
            """One argument as the layers of all levels take it."""
            if name == "edge_index":
                return self._graph(value, x, source)
            if name in OF_EDGES:
                return of_type(value, x)
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
            check_edge_range(inputs.get("edge_index"), len(sources), len(mapped), self.flow)
            raise
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
                f"targets), got {'no targets' if len(x) == 2 else f'{len(x)} parts'}"
            )
        widths = wanted if isinstance(wanted, tuple) else (wanted, wanted)
        for side, width in zip((source, target), widths, strict=True):
            if side is not None:
                check_features(side, width, clouds=source is None or source is target)
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
        if x.dim() == 3:
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


class MGICDynamicEdgeConv(MGICGraphConv):
    r"""EdgeConv in a channel hierarchy on the k-NN graph of its own input features.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        k: Number of neighbours, a point itself counted as the first, as in PyG's ``DynamicEdgeConv``.
        backend: k-NN backend, see :func:`mgic_geo.knn`.
        **kwargs: As for :class:`MGICGraphConv`.

    Shapes:
        - x: dense clouds (B, N, in_channels), or nodes (N, in_channels) with ascending ``batch`` (N,);
        - output: like ``x`` with ``out_channels``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, k: int, backend: str = "auto", **kwargs: Any
    ) -> None:
        super().__init__(in_channels, out_channels, conv=EdgeConv, **kwargs)
        check_k(k)
        check_backend(backend)
        self.k, self.backend = k, backend

    def forward(self, x: Tensor, batch: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Build the graph of ``x``, then run the cycle on it."""
        if not isinstance(x, Tensor):
            raise TypeError(
                f"{type(self).__name__} builds the graph of one set of nodes, a tensor, got "
                f"{type(x).__name__}; MGICGraphConv takes a pair and its own graph"
            )
        return super().forward(x, dynamic_neighbors(x, self.k, batch, self.backend))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}, k={self.k}, {self.hierarchy})"


def dynamic_neighbors(x: Tensor, k: int, batch: Tensor | None = None, backend: str = "auto") -> Neighbors:
    """The k-NN graph of dense clouds (B, N, C), or of nodes (N, C) with their ``batch``, self included.

    Raises:
        ValueError: As :func:`mgic_geo.knn`, or if dense clouds come with a ``batch``.
    """
    if x.dim() == 3:
        if batch is not None:
            raise ValueError("dense clouds (B, N, C) carry their batch in the first axis; leave batch out")
        return Neighbors.from_table(knn(x, k, backend=backend), checked=True)
    return Neighbors.from_table(knn_table(x, k, batch, backend=backend), checked=True)
