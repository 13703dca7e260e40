"""EdgeConv on a GPU: one grouped map gives u and v of all nodes, kernels do the rest."""

from __future__ import annotations

from torch import Tensor, nn

from mgic_geo.core.pointwise import grouped_linear
from mgic_geo.graph.edge_norm import track_centered
from mgic_geo.graph.gpu.edge_max import edge_max
from mgic_geo.graph.gpu.edge_norm import edge_norm
from mgic_geo.graph.gpu.when import applies
from mgic_geo.graph.neighbors import Neighbors

__all__ = ["edge_conv", "fits", "fits_norm", "normalised_edge_conv"]


def fits(x: Tensor, weight: Tensor, neighbors: Neighbors) -> bool:
    """Whether the layer works here: floats on a GPU that Triton serves, and edges between the nodes."""
    return (
        applies(x, weight)
        and neighbors.col.device == x.device
        and neighbors.num_sources == neighbors.num_targets == x.size(0)
        and neighbors.col.numel() > 1
    )


def fits_norm(norm: nn.BatchNorm1d) -> bool:
    """Whether :func:`normalised_edge_conv` serves this one: plain, by a batch's statistics."""
    plain = type(norm) is nn.BatchNorm1d and norm.affine is True and norm.bias is not None
    return plain and (norm.training or norm.running_mean is None)


def edge_conv(x: Tensor, weight: Tensor, bias: Tensor | None, neighbors: Neighbors, groups: int) -> Tensor:
    """As :func:`mgic_geo.graph.edge_native.edge_conv`, on any graph of the nodes; 0 without neighbours."""
    return edge_max(grouped_linear(x, weight, bias, groups), neighbors, groups)


def normalised_edge_conv(
    x: Tensor,
    weight: Tensor,
    norm: nn.BatchNorm1d,
    sign: Tensor,
    slope: float,
    neighbors: Neighbors,
    groups: int,
) -> Tensor:
    """As :func:`mgic_geo.graph.edge_norm_native.normalised_edge_conv`, on any graph; scales may be zero."""
    # u and v nearly cancel where points are far from the origin, so that the common part goes first.
    center = x.detach().mean(0)
    uv = grouped_linear(x - center, weight, None, groups)
    out, mean, var = edge_norm(uv, sign * norm.weight, norm.bias, neighbors, groups, norm.eps, slope)
    if norm.training:
        track_centered(norm, sign, mean, var, weight, center, neighbors.col.numel())
    return out
