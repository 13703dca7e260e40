"""EdgeConv, exact and computed per node: nothing of size edges × channels is ever stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import scatter

from mgic_geo.core import norm_native
from mgic_geo.core.hooks import run_pre_hooks
from mgic_geo.core.pointwise import GroupedLinear, grouped_linear
from mgic_geo.graph import edge_native, gpu
from mgic_geo.graph.activation import Act, resolve_act
from mgic_geo.graph.edge_inputs import check_features
from mgic_geo.graph.edge_maps import both_biases, both_maps
from mgic_geo.graph.edge_norm import by_batch, edge_batch_norm
from mgic_geo.graph.edge_norm_native import fits_norm, normalised_edge_conv
from mgic_geo.graph.edges.propagation import messages_observed
from mgic_geo.graph.neighbors import Neighbors, as_neighbors, edges_of, flatten_clouds
from mgic_geo.graph.reduce import neighbor_max

__all__ = ["EdgeConv"]

_MONOTONE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.Softplus, nn.Softsign,
    nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid,
)  # fmt: skip


class EdgeConv(MessagePassing):
    r"""The edge convolution of `DGCNN <https://arxiv.org/abs/1801.07829>`_ with one linear layer.

    .. math::
        x'_i = \max_{j \in \mathcal{N}(i)} \sigma(\mathcal{N}(W [x_i, x_j - x_i]))

    It equals PyG's ``EdgeConv(Sequential(Linear, BatchNorm1d, act))`` to rounding, with other costs: as
    :math:`W [x_i, x_j - x_i] = u_i + v_j` with :math:`u = (W_a - W_b) x` and :math:`v = W_b x`, two maps per
    node replace one per edge; normalisation and activation are monotone, so the maximum over neighbours is
    taken of :math:`v` (the minimum where the normalisation's scale is negative); and mean and variance over
    *edges* follow from node sums and one sum over neighbours.

    Where several neighbours attain a maximum, the gradient goes to one of them (PyG splits it). ``lin`` and
    ``norm`` are read, not called: of their hooks forward pre-hooks alone run (pruning, say).

    While one of PyG's explainers or message hooks looks at single messages, they are computed edge by edge.
    An explainer's mask has the edges in the order of the edge index, the matrix, the table or
    ``Neighbors.edge_index``.

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        groups: Channel groups; output group g sees input group g only.
        act: Name, module or class of a monotone activation, or None.
        norm: ``"batch_norm"`` (over edges) or None.
        bias: Add a learned bias, which batch normalisation would cancel.
        flow: ``"source_to_target"`` or ``"target_to_source"``, as in PyG.

    Shapes:
        - x: (N, in_channels), or a pair (sources, targets) of them; dense clouds (B, N, in_channels);
        - edge_index: (2, E) of any degrees, ``EdgeIndex``, a sparse transposed adjacency matrix or
          :class:`Neighbors`; for dense clouds a (B, N, k) table of :func:`mgic_geo.knn`;
        - output: (N, out_channels), zero at nodes without neighbours; (B, N, out_channels) for clouds.

    Raises:
        ValueError: On an activation that is not monotone, an unknown ``norm`` or ``flow``, an ``x`` of
            another width or of integers, or a graph that does not fit ``x`` or an explainer's mask.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int = 1,
        act: Act = "relu",
        norm: str | None = "batch_norm",
        bias: bool = False,
        flow: str = "source_to_target",
    ) -> None:
        if norm not in ("batch_norm", None):
            raise ValueError(f"norm must be 'batch_norm' or None, got {norm!r}")
        if flow not in ("source_to_target", "target_to_source"):
            raise ValueError(f"flow must be 'source_to_target' or 'target_to_source', got {flow!r}")
        if in_channels < 1:
            raise ValueError(f"in_channels must be at least 1, got {in_channels}; no width is inferred")
        if in_channels % max(1, groups):
            raise ValueError(f"groups={groups} must divide in_channels={in_channels}")
        super().__init__(aggr=None, flow=flow)  # to_hetero and explainers tell a layer on edges by this class
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        # The weight of a map from [x_i, x_j - x_i], within each group: (out, 2 · in / groups), PyG's layout.
        self.lin = GroupedLinear(2 * in_channels, out_channels, groups, bias)
        self.norm = nn.BatchNorm1d(out_channels) if norm else None
        self.act = resolve_act(act)
        if not isinstance(self.act, _MONOTONE) or getattr(self.act, "negative_slope", 0) < 0:
            raise ValueError(
                f"act={self.act} is not monotone, so it does not commute with the maximum; use one such as "
                "'relu' or 'leaky_relu', or act=None, norm=None with the activation after the layer"
            )

    def reset_parameters(self) -> None:
        """Draw the weights anew and forget the running statistics."""
        self.lin.reset_parameters()
        if self.norm is not None:
            self.norm.reset_parameters()

    def forward(self, x: Tensor | tuple[Tensor, Tensor], edge_index: Tensor | Neighbors) -> Tensor:
        """Gather from the graph; shapes as in the class's docstring."""
        for side in x if isinstance(x, tuple | list) else (x,):
            check_features(side, self.in_channels, clouds=side is x)
        shape = (x if isinstance(x, Tensor) else x[1]).shape[:-1]
        if isinstance(x, Tensor) and x.dim() == 3:
            x, edge_index = flatten_clouds(x, edge_index)
        source, target = (x, x) if isinstance(x, Tensor) else x
        neighbors = as_neighbors(edge_index, target.size(0), source.size(0), self.flow)
        if messages_observed(self):
            sizes, edges = (source.size(0), target.size(0)), edges_of(edge_index, self.flow).long()
            return self.propagate(edges, size=sizes, x=(source, target)).view(*shape, self.out_channels)
        for part in (self.lin, self.norm):  # neither is called
            if part is not None:
                run_pre_hooks(part, source)
        out = self._compiled(source, neighbors) if source is target else None
        if out is None:
            out = self.act(self._by_parts(source, target, neighbors))
        if neighbors.has_isolated:
            out = out * (neighbors.in_degree > 0).unsqueeze(1)
        return out.view(*shape, self.out_channels)

    def _compiled(self, x: Tensor, neighbors: Neighbors) -> Tensor | None:
        """The layer as a compiled step, by loops on a CPU or kernels on a GPU; None where there is none."""
        on_gpu = gpu.fits(x, self.lin.weight, neighbors)
        if not on_gpu and not edge_native.fits(x, self.lin.weight, neighbors, self.groups):
            return None
        if self.norm is None:
            step = gpu.edge_conv if on_gpu else edge_native.edge_conv
            weight = both_maps(self.lin.weight, self.groups)
            bias = None if self.lin.bias is None else both_biases(self.lin.bias, self.groups)
            return self.act(step(x, weight, bias, neighbors, self.groups))
        slope = norm_native.slope_of(self.act)
        if slope is None or self.lin.bias is not None:
            return None
        if not (gpu.fits_norm(self.norm) if on_gpu else fits_norm(self.norm, x.size(0), self.out_channels)):
            return None
        step = gpu.normalised_edge_conv if on_gpu else normalised_edge_conv
        sign = _sign(self.norm.weight)
        weight = both_maps(sign.unsqueeze(1) * self.lin.weight, self.groups)
        return step(x, weight, self.norm, sign, slope, neighbors, self.groups)

    def _by_parts(self, source: Tensor, target: Tensor, neighbors: Neighbors) -> Tensor:
        """The sums u + max v before the activation, on any graph and device."""
        # A channel with a negative scale is computed with its sign flipped: its minimum is a maximum then.
        sign = _sign(self.norm.weight) if self.norm is not None else torch.ones_like(self.lin.weight[:, 0])
        on_center, on_neighbor = (sign.unsqueeze(1) * self.lin.weight).chunk(2, dim=1)
        bias = None if self.lin.bias is None else sign * self.lin.bias
        if self.norm is not None and by_batch(self.norm):
            # u and v nearly cancel where points are far from the origin, so that the common part goes first:
            # the layer sees it through x_i alone, as one more bias. In evaluation no node sees other graphs.
            center = source.detach().mean(0, keepdim=True)
            source, target = source - center, target - center
            bias = grouped_linear(center, on_center, bias, self.groups).squeeze(0)
        u = grouped_linear(target, on_center - on_neighbor, bias, self.groups)
        v = grouped_linear(source, on_neighbor, None, self.groups)
        out = u + neighbor_max(v, neighbors)
        return out if self.norm is None else edge_batch_norm(self.norm, out, u, v, sign, neighbors)

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:  # type: ignore[override]
        """The message of each edge, as PyG has it; only for those who look at single ones."""
        ends = [x.unflatten(1, (self.groups, -1)) for x in (x_i, x_j - x_i)]
        out = self.lin(torch.cat(ends, 2).flatten(1))
        return self.act(out if self.norm is None else self.norm(out))

    def explain_message(self, inputs: Tensor, dim_size: int | None) -> Tensor:
        """Mask the messages (E, C); PyG would take edges that the mask lacks for loops that a layer added."""
        if self._edge_mask is not None and len(self._edge_mask) != len(inputs):
            raise ValueError(
                f"the explainer's mask is of {len(self._edge_mask)} edges, but the graph of {self} has "
                f"{len(inputs)}; only graphs that the model is given can be explained, none that it makes"
            )
        return super().explain_message(inputs, dim_size)

    def aggregate(
        self, inputs: Tensor, index: Tensor, ptr: Tensor | None = None, dim_size: int | None = None
    ) -> Tensor:
        """The maximum over neighbours, zero where there are none."""
        return scatter(inputs, index, 0, dim_size, reduce="max")

    def split(self) -> list[EdgeConv]:
        """The small layers that this one equals, one a group, with copies of its weights."""
        sizes = self.in_channels // self.groups, self.out_channels // self.groups
        options: dict[str, Any] = {"act": self.act, "norm": "batch_norm" if self.norm else None}
        parts = []
        for values in self.split_state(self.state_dict()):
            small = EdgeConv(*sizes, bias=self.lin.bias is not None, flow=self.flow, **options)
            small.load_state_dict(values)
            parts.append(small.to(self.lin.weight).train(self.training))
        return parts

    def split_state(self, state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Cut what has this layer's names and shapes, its weights' gradients say, into the small layers'."""
        pieces = {
            n: value.chunk(self.groups) if value.dim() else [value] * self.groups
            for n, value in state.items()
        }
        return [{name: piece[g] for name, piece in pieces.items()} for g in range(self.groups)]

    def __repr__(self) -> str:
        text = f"{type(self).__name__}({self.in_channels}, {self.out_channels}"
        text += f", groups={self.groups}" if self.groups > 1 else ""
        text += "" if isinstance(self.act, nn.ReLU) else f", act={self.act}"
        text += ", norm=None" if self.norm is None else ""
        text += ", bias=True" if self.lin.bias is not None else ""
        return text + ("" if self.flow == "source_to_target" else f", flow={self.flow!r}") + ")"


def _sign(scale: Tensor) -> Tensor:
    return torch.where(scale.detach() < 0, -1.0, 1.0).to(scale.dtype)
