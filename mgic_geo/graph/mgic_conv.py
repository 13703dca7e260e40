"""Message-passing layers whose channels are coupled by a multigrid cycle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from mgic_geo.core import ChannelHierarchy
from mgic_geo.graph.activation import Act, resolve_act
from mgic_geo.graph.edge_conv import EdgeConv
from mgic_geo.graph.graph_block import Factory, GraphBlock, norm_factory
from mgic_geo.graph.graph_cycle import GraphCycle
from mgic_geo.graph.grouped import grouped, resolve_conv
from mgic_geo.graph.knn import check_backend, check_k, knn, knn_table
from mgic_geo.graph.neighbors import Neighbors

__all__ = ["MGICDynamicEdgeConv", "MGICGraphConv", "dynamic_neighbors"]


class MGICGraphConv(GraphCycle):
    r"""Any PyG message-passing layer, its dense channel coupling replaced by Algorithm 1 of the paper.

    Every level of the channel hierarchy runs :math:`x + \sigma(\mathcal{N}(\mathrm{conv}(x)))` on the same
    graph, grouped on all but the coarsest: channels coarsen, points do not. Parameters and multiply-adds grow
    linearly with the width at fixed ``group_size`` and ``coarse_size``. A change of width comes first, by a
    grouped pointwise map. Normalisation, activation and residual are inside: add none behind the layer.

    Of a bipartite pair (sources, targets) the targets go through the cycle. The sources, which no layer
    changes, are restricted to the width of every level and read there, as is a further feature ``x_0``.

    Args:
        in_channels: Width of the input, or -1 to take it from the first one; a pair of widths, of which
            either may be -1, for sources and targets of different kinds.
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
        transfer_init: ``"random"``, ``"average"`` or ``"signed"``, see :class:`mgic_geo.Restriction`. The
            default is the last: averages of a group are nearly copies of one another, so coarse levels would
            see little but the mean, and deep networks train worse.
        correction_norm: Normalisation of the corrections alone; ``"same"`` for that of ``norm``.
        act_first: Activate before the normalisation.
        **conv_kwargs: Go to the layer of every level. With ``cached=True`` layers keep the graph of the first
            call, as in PyG; SGConv and SSGConv, which keep features instead, are refused with it.

    Shapes:
        - x: (N, in_channels) or a pair of them; what follows is what the layer's own ``forward`` takes;
        - also dense clouds (B, N, in_channels) with a (B, N, k) neighbour table;
        - output: like ``x``, or the targets, with ``out_channels``.

    Raises:
        ValueError: On impossible sizes, a ``conv`` or ``norm`` that is a module and builds none, an ``x`` of
            another width, edge weights or features of another number of edges, an edge index outside the
            nodes, a layer that changes the shape of the features, one that keeps features (``cached=True``),
            or if attention weights are asked for: each level has its own.
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
        transfer_init: str = "signed",
        correction_norm: str | Factory | None = "same",
        act_first: bool = False,
        **conv_kwargs: Any,
    ) -> None:
        conv = resolve_conv(conv)
        takes_neighbors = conv is EdgeConv
        if takes_neighbors:
            conv_kwargs = {"norm": None, "act": None, **conv_kwargs}
        norm = norm_factory(norm)

        def block(width: int, groups: int) -> nn.Module:
            layer = grouped(conv, groups)(width, width, **conv_kwargs)
            return GraphBlock(layer, norm(width), resolve_act(act), act_first)

        super().__init__(
            in_channels,
            ChannelHierarchy(out_channels, group_size, coarse_size, min_levels),
            block,
            norm=norm if correction_norm == "same" else norm_factory(correction_norm),
            transfer_init=transfer_init,
            # A factory that is kept, a lambda say, would keep the layer from being pickled.
            conv_name=getattr(conv, "__name__", str(conv)),
            flow=conv_kwargs.get("flow", "source_to_target"),
        )
        self._takes_neighbors = takes_neighbors


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
