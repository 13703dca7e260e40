"""EdgeConv for inference: its normalisation, or the one behind it, is part of the weights."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from mgic_geo.core.fold import affine_of, in_place
from mgic_geo.core.pointwise import GroupedLinear
from mgic_geo.graph import edge_native, gpu
from mgic_geo.graph.edge_conv import EdgeConv
from mgic_geo.graph.edge_maps import both_biases, side_by_side
from mgic_geo.graph.neighbors import Neighbors, as_neighbors, flatten_clouds
from mgic_geo.graph.reduce import neighbor_max

__all__ = ["FoldedEdgeConv", "fold_edge_conv"]


class FoldedEdgeConv(MessagePassing):
    r"""What an :class:`EdgeConv` computes in evaluation, with a batch normalisation inside or behind it.

    The maps of a node for itself and for those that gather from it are made once; the scale is part of them,
    so that :math:`u_i + v_j` are normalised values and their maximum is taken, whatever the scale's sign.
    Built by :func:`fold_edge_conv`.

    Args:
        conv: The layer; its weights are copied.
        scale: (C,) of the normalisation, float64.
        shift: (C,) likewise.
        isolated: (C,) the output at nodes without neighbours.

    Shapes:
        - as :class:`EdgeConv`.
    """

    isolated: Tensor

    def __init__(self, conv: EdgeConv, scale: Tensor, shift: Tensor, isolated: Tensor) -> None:
        super().__init__(aggr=None, flow=conv.flow)
        self.in_channels, self.out_channels, self.groups = conv.in_channels, conv.out_channels, conv.groups
        self.act = in_place(conv.act)
        weight = conv.lin.weight.detach().double() * scale.unsqueeze(1)
        if conv.lin.bias is not None:
            shift = shift + conv.lin.bias.detach().double() * scale
        on_center, on_neighbor = weight.chunk(2, dim=1)
        self.center = self._map(on_center - on_neighbor, conv.lin.weight, shift)
        self.neighbor = self._map(on_neighbor, conv.lin.weight)
        self.register_buffer("isolated", isolated.to(conv.lin.weight))

    def _map(self, weight: Tensor, like: Tensor, bias: Tensor | None = None) -> GroupedLinear:
        layer = GroupedLinear(self.in_channels, self.out_channels, self.groups, bias is not None)
        layer.weight = nn.Parameter(weight.contiguous().to(like))
        layer.bias = None if bias is None else nn.Parameter(bias.to(like))
        return layer

    def forward(self, x: Tensor | tuple[Tensor, Tensor], edge_index: Tensor | Neighbors) -> Tensor:
        """Gather from the graph; shapes as :class:`EdgeConv`.

        Raises:
            ValueError: Under one of PyG's explainers, for a normalisation that was behind the maximum is part
                of the messages here.
        """
        if self.explain:
            raise ValueError(
                "a fused model has no messages of its own to mask; explain the model it was made of"
            )
        shape = (x if isinstance(x, Tensor) else x[1]).shape[:-1]
        if isinstance(x, Tensor) and x.dim() == 3:
            x, edge_index = flatten_clouds(x, edge_index)
        source, target = (x, x) if isinstance(x, Tensor) else x
        neighbors = as_neighbors(edge_index, target.size(0), source.size(0), self.flow)
        out = self.act(self._gathered(source, target, neighbors))
        if neighbors.has_isolated:
            out = torch.where((neighbors.in_degree > 0).unsqueeze(1), out, self.isolated)
        return out.view(*shape, self.out_channels)

    def _gathered(self, source: Tensor, target: Tensor, neighbors: Neighbors) -> Tensor:
        """The sums u + max v."""
        weights, bias = (self.center.weight, self.neighbor.weight), cast(Tensor, self.center.bias)
        # What fits is told from a weight of PyG's layout, both maps side by side.
        on_gpu = gpu.fits(source, self.center.weight, neighbors)
        if source is target and (
            on_gpu or edge_native.fits(source, torch.cat(weights, 1), neighbors, self.groups)
        ):
            step = gpu.edge_conv if on_gpu else edge_native.edge_conv
            both, biases = side_by_side(*weights, self.groups), both_biases(bias, self.groups)
            return step(source, both, biases, neighbors, self.groups)
        return neighbor_max(self.neighbor(source), neighbors).add_(self.center(target))

    @torch.no_grad()
    def behind(self, restriction: GroupedLinear) -> FoldedEdgeConv:
        """Put a restriction and this dense layer in one, whose maps read the finer level's features."""
        merged = copy.deepcopy(self)
        merged.in_channels = restriction.in_channels
        blocks = restriction.weight.double().unflatten(0, (restriction.groups, -1))
        matrix = torch.block_diag(*blocks)
        merged.center = merged._map(
            self.center.weight.double() @ matrix, self.center.weight, self.center.bias
        )
        merged.neighbor = merged._map(self.neighbor.weight.double() @ matrix, self.neighbor.weight)
        return merged

    def extra_repr(self) -> str:
        """Widths and groups."""
        return f"{self.in_channels}, {self.out_channels}, groups={self.groups}"

    __repr__ = nn.Module.__repr__  # with its parts, which PyG's leaves out


def fold_edge_conv(conv: EdgeConv, norm: nn.Module | None = None) -> FoldedEdgeConv | None:
    """The layer that does in evaluation what ``conv`` and then ``norm`` do.

    Args:
        conv: The layer.
        norm: A batch normalisation that alone reads its output, if there is one.

    Returns:
        None where a normalisation cannot be folded: no batch normalisation with running statistics, or a
        negative scale *behind* the maximum, which it would make a minimum.
    """
    one = torch.ones(conv.out_channels, dtype=torch.double, device=conv.lin.weight.device)
    scale, shift, isolated = one, 0 * one, 0 * one
    if conv.norm is not None:
        affine = affine_of(conv.norm)
        if affine is None or norm is not None:
            return None
        scale, shift = affine
    elif norm is not None:
        affine = affine_of(norm)
        if affine is None or not isinstance(conv.act, nn.Identity) or bool((affine[0] < 0).any()):
            return None
        scale, shift = affine
        isolated = shift
    return FoldedEdgeConv(conv, scale, shift, isolated)
