"""Grouped forms of layers that hold their weights as plain tensors, not as linear maps.

Their parameters have the names of PyG's layers, and the axis of a group's channels, or rows of a recurrent
cell, is ``groups`` times as long, one group after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import (
    ARMAConv,
    GatedGraphConv,
    GCNConv,
    MessagePassing,
)
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from mgic_geo.core.pointwise import grouped_linear
from mgic_geo.graph.edges.linear_propagation import linear_form, propagate_linear
from mgic_geo.graph.self_loops import self_loops_of

__all__ = ["GroupedARMA", "GroupedGCN2", "GroupedGatedGraph"]

_LinearGCN: Callable[..., MessagePassing] = linear_form(GCNConv)


def _times(x: Tensor, weight: Tensor, groups: int) -> Tensor:
    """A product with a matrix (in, out) in every group; the rows of all matrices follow one another."""
    blocks = weight.reshape(groups, -1, weight.size(-1)).transpose(1, 2)
    return grouped_linear(x, blocks.reshape(-1, blocks.size(-1)), None, groups)


def _block_rows(weight: Tensor, groups: int) -> nn.Parameter:
    """Room for the diagonal blocks of (..., in, out), one below the other: (..., in, out / groups)."""
    return nn.Parameter(weight.new_empty(*weight.shape[:-1], weight.size(-1) // groups))


class GroupedARMA(ARMAConv):
    """``ARMAConv`` within groups; every stack of every group is propagated at once."""

    propagate = propagate_linear  # type: ignore[assignment]

    def __init__(self, groups: int, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__(in_channels, out_channels, **kwargs)
        self.groups = groups
        for name in ("weight", "init_weight", "root_weight"):
            setattr(self, name, _block_rows(getattr(self, name), groups))

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """As ``ARMAConv``: (N, in_channels) to (N, out_channels)."""
        normalised = gcn_norm(
            edge_index, edge_weight, x.size(0), add_self_loops=False, flow=self.flow, dtype=x.dtype
        )
        edge_index, edge_weight = normalised if isinstance(normalised, tuple) else (normalised, None)
        blocks, out = self.num_stacks * self.groups, x.repeat(1, self.num_stacks)
        for step in range(self.num_layers):
            weight = self.weight[0 if self.shared_weights else step - 1] if step else self.init_weight
            out = _times(out, weight, blocks)
            out = self.propagate(edge_index, x=out, edge_weight=edge_weight)
            root = F.dropout(x, p=self.dropout, training=self.training).repeat(1, self.num_stacks)
            own = 0 if self.shared_weights else step
            out = out + _times(root, self.root_weight[own], blocks)
            if self.bias is not None:
                out = out + self.bias[own].flatten()
            if self.act is not None:
                out = self.act(out)
        return out.unflatten(-1, (self.num_stacks, -1)).mean(-2)


class GroupedGCN2(nn.Module):
    """``GCN2Conv`` within groups; the initial features fall into groups as the features do."""

    add_self_loops = self_loops_of(lambda self: [self.propagation])

    def __init__(
        self,
        groups: int,
        channels: int,
        alpha: float,
        theta: float | None = None,
        layer: int | None = None,
        shared_weights: bool = True,
        normalize: bool = True,
        add_self_loops: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.groups, self.alpha = groups, alpha
        self.beta = 1.0 if theta is None or layer is None else math.log(theta / layer + 1)
        loops = add_self_loops and normalize
        self.propagation = _LinearGCN(
            channels, channels, normalize=normalize, add_self_loops=loops, bias=False, **kwargs
        )
        self.propagation.lin = nn.Identity()  # type: ignore[assignment]  # its normalised propagation alone
        empty = torch.empty(channels, channels)
        self.weight1 = _block_rows(empty, groups)
        self.weight2 = None if shared_weights else _block_rows(empty, groups)

    def forward(self, x: Tensor, x_0: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """As ``GCN2Conv``: ``x`` and ``x_0`` (N, channels) to (N, channels)."""
        x = (1 - self.alpha) * self.propagation(x, edge_index, edge_weight)
        x_0 = self.alpha * x_0[: x.size(0)]
        if self.weight2 is None:
            return self._mix(x + x_0, self.weight1)
        return self._mix(x, self.weight1) + self._mix(x_0, self.weight2)

    def _mix(self, x: Tensor, weight: Tensor) -> Tensor:
        return (1 - self.beta) * x + self.beta * _times(x, weight, self.groups)


class GroupedGatedGraph(GatedGraphConv):
    """``GatedGraphConv`` within groups; a narrower input is padded group by group."""

    propagate = propagate_linear  # type: ignore[assignment]

    def __init__(
        self,
        groups: int,
        out_channels: int,
        num_layers: int,
        aggr: str = "add",
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(out_channels, num_layers, aggr, bias, **kwargs)
        self.groups = groups
        self.weight = _block_rows(self.weight, groups)
        self.rnn = _GroupedGRUCell(out_channels, groups, bias)  # type: ignore[assignment]

    def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
        """As ``GatedGraphConv``: (N, at most out_channels) to (N, out_channels)."""
        missing = (self.out_channels - x.size(-1)) // self.groups
        x = F.pad(x.unflatten(-1, (self.groups, -1)), (0, missing)).flatten(-2)
        for weight in self.weight:
            message = _times(x, weight, self.groups)
            x = self.rnn(self.propagate(edge_index, x=message, edge_weight=edge_weight), x)
        return x


class _GroupedGRUCell(nn.Module):
    """A gated recurrent unit in every group, all at once; names and rows as ``nn.GRUCell``'s in each."""

    def __init__(self, width: int, groups: int, bias: bool) -> None:
        super().__init__()
        self.groups = groups
        self.weight_ih = nn.Parameter(torch.empty(3 * width, width // groups))
        self.weight_hh = nn.Parameter(torch.empty(3 * width, width // groups))
        self.bias_ih = nn.Parameter(torch.empty(3 * width)) if bias else None
        self.bias_hh = nn.Parameter(torch.empty(3 * width)) if bias else None

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        read = self._gates(x, self.weight_ih, self.bias_ih)
        kept = self._gates(state, self.weight_hh, self.bias_hh)
        reset, update = (a + b for a, b in zip(read[:2], kept[:2], strict=True))
        fresh = (read[2] + reset.sigmoid() * kept[2]).tanh()
        fresh, update = fresh.to(state.dtype), update.to(state.dtype)  # autocast narrows the gates alone
        return torch.lerp(fresh, state, update.sigmoid())

    def _gates(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
        gates = grouped_linear(x, weight, bias, self.groups).unflatten(-1, (self.groups, 3, -1))
        return [gate.flatten(-2) for gate in gates.unbind(-2)]
