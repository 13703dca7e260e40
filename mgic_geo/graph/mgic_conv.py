"""Message-passing layers whose channels are coupled by a multigrid cycle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch_geometric.nn import SAGEConv
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import activation_resolver

from mgic_geo.core import ChannelHierarchy, GroupedLinear, MGICBlock
from mgic_geo.graph.edge_conv import EdgeConv
from mgic_geo.graph.grouped import grouped, resolve_conv
from mgic_geo.graph.knn import check_backend, check_k, knn, knn_table
from mgic_geo.graph.neighbors import Neighbors, flatten_clouds

__all__ = ["MGICDynamicEdgeConv", "MGICGraphConv"]

Factory = Callable[[int], nn.Module]

_NORMS: dict[str | None, Factory] = {
    "batch_norm": nn.BatchNorm1d,
    "layer_norm": nn.LayerNorm,
    None: lambda width: nn.Identity(),
}


class MGICGraphConv(nn.Module):
    r"""Any PyG message-passing layer, its dense channel coupling replaced by Algorithm 1 of the paper.

    Every level of the channel hierarchy runs :math:`x + \sigma(\mathcal{N}(\mathrm{conv}(x)))` on the same
    graph, grouped on all but the coarsest: channels coarsen, points do not. Parameters and multiply-adds grow
    linearly with the width at fixed ``group_size`` and ``coarse_size``. A change of width comes first, by a
    grouped pointwise map. Normalisation, activation and residual are inside: add none behind the layer.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        conv: A PyG layer, class or name, called as ``conv(width, width, **conv_kwargs)``. :class:`EdgeConv`
            runs without its own normalisation and activation: those of the block follow it.
        group_size: Largest number of channels in a group, :math:`s_g`.
        coarse_size: Largest width of the coarsest, fully coupled level, :math:`s_c`.
        act: Activation of the blocks: a name of PyG's resolver, a module without parameters, or None.
        norm: Normalisation of blocks and corrections: ``"batch_norm"``, ``"layer_norm"``, a factory
            ``norm(width)`` of a module on (N, width), or None.
        min_levels: Coarsen at least this many times.
        transfer_init: ``"random"`` or ``"average"``, see :class:`mgic_geo.Restriction`.
        **conv_kwargs: Go to the layer of every level.

    Shapes:
        - x: (N, in_channels), edge_index: what the layer takes; more arguments are passed on;
        - also dense clouds (B, N, in_channels) with a (B, N, k) neighbour table;
        - output: like ``x`` with ``out_channels``.

    Raises:
        ValueError: On impossible sizes, or an ``x`` of another width.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        conv: str | Callable[..., nn.Module] = SAGEConv,
        group_size: int = 16,
        coarse_size: int = 32,
        act: str | nn.Module | None = "relu",
        norm: str | Factory | None = "batch_norm",
        min_levels: int = 0,
        transfer_init: str = "random",
        **conv_kwargs: Any,
    ) -> None:
        super().__init__()
        conv = resolve_conv(conv)
        self.in_channels, self.out_channels, self.conv_class = in_channels, out_channels, conv
        hierarchy = ChannelHierarchy(out_channels, group_size, coarse_size, min_levels)
        self.hierarchy = hierarchy
        norm = _norm_factory(norm)
        self.flow = conv_kwargs.get("flow", "source_to_target")
        if conv is EdgeConv:
            conv_kwargs = {"norm": None, "act": None, **conv_kwargs}

        def block(width: int, groups: int) -> nn.Module:
            layer = grouped(conv, groups)(width, width, **conv_kwargs)
            activation = nn.Identity() if act is None else activation_resolver(act)
            return GraphBlock(layer, norm(width), activation)

        self.shortcut = _shortcut(in_channels, out_channels, group_size)
        self.cycle = MGICBlock(hierarchy, block, norm=norm, transfer_init=transfer_init)

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        if isinstance(self.shortcut, GroupedLinear):
            self.shortcut.reset_parameters()
        self.cycle.reset_parameters()

    def forward(self, x: Tensor, edge_index: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Run the cycle on a graph; ``args`` and ``kwargs`` reach the layer of every level."""
        if not isinstance(x, Tensor):
            raise ValueError(
                f"{type(self).__name__} adds its input to its output, so x is one tensor, "
                f"got {type(x).__name__}"
            )
        shape = x.shape[:-1]
        if x.size(-1) != self.in_channels:
            raise ValueError(f"x needs in_channels={self.in_channels} channels, got shape {tuple(x.shape)}")
        if x.dim() == 3:
            x, edge_index = flatten_clouds(x, edge_index)
        if self.conv_class is not EdgeConv and isinstance(edge_index, Neighbors):
            turn = self.flow == "target_to_source"
            edge_index = edge_index.edge_index.flip(0) if turn else edge_index.edge_index
        elif self.conv_class is EdgeConv and not isinstance(edge_index, Neighbors):
            # Once for all levels.
            edge_index = Neighbors.from_edge_index(edge_index, x.size(0), flow=self.flow)
        return self.cycle(self.shortcut(x), edge_index, *args, **kwargs).view(*shape, self.out_channels)

    def __repr__(self) -> str:
        name = getattr(self.conv_class, "__name__", str(self.conv_class))
        return (
            f"{type(self).__name__}({self.in_channels}, {self.out_channels}, conv={name}, {self.hierarchy})"
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
        return super().forward(x, dynamic_neighbors(x, self.k, batch, self.backend))


class GraphBlock(nn.Module):
    """The block of one level: x + act(norm(conv(x, graph)))."""

    def __init__(self, conv: nn.Module, norm: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.act = conv, norm, act

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        reset(self.conv)
        reset(self.norm)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(N, width) to (N, width)."""
        return x + self.act(self.norm(self.conv(x, *args, **kwargs)))


def dynamic_neighbors(x: Tensor, k: int, batch: Tensor | None = None, backend: str = "auto") -> Neighbors:
    """The k-NN graph of dense clouds (B, N, C), or of nodes (N, C) with their ``batch``, self included.

    Raises:
        ValueError: As :func:`mgic_geo.knn`, or if dense clouds come with a ``batch``.
    """
    if x.dim() == 3:
        if batch is not None:
            raise ValueError("dense clouds (B, N, C) carry their batch in the first axis; leave batch out")
        return Neighbors.from_table(knn(x, k, backend=backend))
    return Neighbors.from_table(knn_table(x, k, batch, backend=backend))


def _shortcut(in_channels: int, out_channels: int, group_size: int) -> nn.Module:
    """The fewest groups that divide both widths and read at most ``group_size`` channels each."""
    if in_channels == out_channels:
        return nn.Identity()
    common = math.gcd(in_channels, out_channels)
    divisors = [groups for groups in range(1, common + 1) if common % groups == 0]
    fitting = [groups for groups in divisors if in_channels // groups <= group_size]
    return GroupedLinear(in_channels, out_channels, groups=fitting[0] if fitting else common)


def _norm_factory(norm: str | Factory | None) -> Factory:
    if callable(norm):
        return norm
    if norm not in _NORMS:
        raise ValueError(
            f"norm must be 'batch_norm', 'layer_norm', None or a factory norm(width), got {norm!r}; PyG's "
            "other normalisations work on whole graphs, and a block is not told which node is in which graph"
        )
    return _NORMS[norm]
