"""EdgeConv, exact and computed per node: nothing of size edges × channels is ever stored."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn.resolver import activation_resolver

from mgic_geo.core.pointwise import GroupedLinear, grouped_linear
from mgic_geo.graph.neighbors import Neighbors, flatten_clouds
from mgic_geo.graph.reduce import neighbor_max, neighbor_sum

__all__ = ["EdgeConv"]

_MONOTONE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.Softplus, nn.Softsign,
    nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid,
)  # fmt: skip


class EdgeConv(nn.Module):
    r"""The edge convolution of `DGCNN <https://arxiv.org/abs/1801.07829>`_ with one linear layer.

    .. math::
        x'_i = \max_{j \in \mathcal{N}(i)} \sigma(\mathcal{N}(W [x_i, x_j - x_i]))

    It equals PyG's ``EdgeConv(Sequential(Linear, BatchNorm1d, act))`` to rounding, with other costs: as
    :math:`W [x_i, x_j - x_i] = u_i + v_j` with :math:`u = (W_a - W_b) x` and :math:`v = W_b x`, two maps per
    node replace one per edge; normalisation and activation are monotone, so the maximum over neighbours is
    taken of :math:`v` (the minimum where the normalisation's scale is negative); and mean and variance over
    *edges* follow from node sums and one sum over neighbours.

    Where several neighbours attain a maximum, the gradient goes to one of them (PyG splits it).

    Args:
        in_channels: Width of the input.
        out_channels: Width of the output.
        groups: Channel groups; output group g sees input group g only.
        act: Name or module of a monotone activation, or None.
        norm: ``"batch_norm"`` (over edges) or None.
        bias: Add a learned bias, which batch normalisation would cancel.
        flow: ``"source_to_target"`` or ``"target_to_source"``, as in PyG.

    Shapes:
        - x: (N, in_channels), or a pair (sources, targets) of them; dense clouds (B, N, in_channels);
        - edge_index: (2, E) of any degrees, or :class:`Neighbors`; for dense clouds a (B, N, k) table of
          :func:`mgic_geo.knn`;
        - output: (N, out_channels), zero at nodes without neighbours; (B, N, out_channels) for clouds.

    Raises:
        ValueError: On an activation that is not monotone, an unknown ``norm`` or ``flow``, or a graph that
            does not fit ``x``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        groups: int = 1,
        act: str | nn.Module | None = "relu",
        norm: str | None = "batch_norm",
        bias: bool = False,
        flow: str = "source_to_target",
    ) -> None:
        super().__init__()
        if norm not in ("batch_norm", None):
            raise ValueError(f"norm must be 'batch_norm' or None, got {norm!r}")
        if flow not in ("source_to_target", "target_to_source"):
            raise ValueError(f"flow must be 'source_to_target' or 'target_to_source', got {flow!r}")
        self.in_channels, self.out_channels, self.groups, self.flow = in_channels, out_channels, groups, flow
        # The weight of a map from [x_i, x_j - x_i], within each group: (out, 2 · in / groups), PyG's layout.
        self.lin = GroupedLinear(2 * in_channels, out_channels, groups, bias)
        self.norm = nn.BatchNorm1d(out_channels) if norm else None
        self.act = nn.Identity() if act is None else activation_resolver(act)
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
        shape = (x if isinstance(x, Tensor) else x[1]).shape[:-1]
        if isinstance(x, Tensor) and x.dim() == 3:
            x, edge_index = flatten_clouds(x, edge_index)
        source, target = (x, x) if isinstance(x, Tensor) else x
        if isinstance(edge_index, Neighbors):
            neighbors = edge_index
        else:
            neighbors = Neighbors.from_edge_index(edge_index, target.size(0), source.size(0), self.flow)

        # A channel with a negative scale is computed with its sign turned: its minimum is a maximum then.
        sign = _sign(self.norm.weight) if self.norm is not None else torch.ones_like(self.lin.weight[:, 0])
        on_center, on_neighbor = (sign.unsqueeze(1) * self.lin.weight).chunk(2, dim=1)
        bias = None if self.lin.bias is None else sign * self.lin.bias
        u = grouped_linear(target, on_center - on_neighbor, bias, self.groups)
        v = grouped_linear(source, on_neighbor, None, self.groups)
        out = u + neighbor_max(v, neighbors)
        if self.norm is not None:
            out = self._normalise(out, u, v, sign, neighbors)
        out = self.act(out)
        if neighbors.has_isolated:
            out = out * (neighbors.in_degree > 0).unsqueeze(1)
        return out.view(*shape, self.out_channels)

    def _normalise(self, out: Tensor, u: Tensor, v: Tensor, sign: Tensor, neighbors: Neighbors) -> Tensor:
        """Batch normalisation over edges of ``out``, the maxima of u_i + v_j, all with signs turned."""
        norm = self.norm
        dtype, out, u, v = out.dtype, _full(out), _full(u), _full(v)
        use_batch = self.training or norm.running_mean is None
        if use_batch:
            mean, var = _edge_moments(u, v, neighbors)
            if self.training and norm.track_running_stats:
                self._update_running(sign * mean.detach(), var.detach(), neighbors.col.numel())
        else:
            mean, var = sign * norm.running_mean, norm.running_var
        if torch.is_grad_enabled() and bool((norm.weight == 0).any()):
            # All neighbours tie where the scale is zero; its gradient is that of their mean, as PyG's.
            tie = u + neighbor_sum(v, neighbors) / neighbors.in_degree.clamp(min=1).unsqueeze(1)
            out = torch.where(norm.weight == 0, tie, out)
        scale = sign * norm.weight * torch.rsqrt(var + norm.eps)
        return ((out - mean) * scale + norm.bias).to(dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, var: Tensor, edges: int) -> None:
        norm = self.norm
        norm.num_batches_tracked += 1
        momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
        norm.running_var.lerp_((var * edges / (edges - 1)).to(norm.running_var.dtype), momentum)

    def __repr__(self) -> str:
        groups = f", groups={self.groups}" if self.groups > 1 else ""
        return f"{type(self).__name__}({self.in_channels}, {self.out_channels}{groups})"


def _sign(scale: Tensor) -> Tensor:
    return torch.where(scale.detach() < 0, -1.0, 1.0).to(scale.dtype)


def _full(x: Tensor) -> Tensor:
    """Statistics need float32 where autocast hands over half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _edge_moments(u: Tensor, v: Tensor, neighbors: Neighbors) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance per channel of u_i + v_j over all edges, from centred node values."""
    edges = neighbors.col.numel()
    if edges < 2:
        raise ValueError(f"batch normalisation over edges needs at least 2 edges in training, got {edges}")
    in_degree = neighbors.in_degree.unsqueeze(1).to(u.dtype)
    out_degree = neighbors.out_degree.unsqueeze(1).to(v.dtype)
    mean_u = (in_degree * u).sum(0) / edges
    mean_v = (out_degree * v).sum(0) / edges
    u, v = u - mean_u, v - mean_v
    cross = (u * neighbor_sum(v, neighbors)).sum(0)
    var = ((in_degree * u * u).sum(0) + 2 * cross + (out_degree * v * v).sum(0)) / edges
    return mean_u + mean_v, var.clamp(min=0)
