"""Maximum and sum over neighbours without anything of size edges × channels.

Both are registered operators: autograd, ``torch.compile`` and ``torch.export`` see one node. On CPU they
are torch's sparse-times-dense kernel with a reduction; elsewhere a loop over the j-th neighbour of all
nodes at once, which holds two (N, C) buffers. The two give the same values.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from mgic_geo.graph.neighbors import Neighbors

__all__ = ["neighbor_max", "neighbor_sum"]


def neighbor_max(y: Tensor, neighbors: Neighbors) -> Tensor:
    """The largest value per channel over each node's neighbours.

    The gradient goes to the neighbour that attains the maximum, to one of them where several do.

    Args:
        y: (num_sources, C) features.
        neighbors: The graph, N targets.

    Returns:
        (N, C); 0 for a node without neighbours, as PyG's aggregations.
    """
    return _max(y, neighbors.rowptr, neighbors.col)[0]


def neighbor_sum(y: Tensor, neighbors: Neighbors) -> Tensor:
    """The sum per channel over each node's neighbours.

    Args:
        y: (num_sources, C) features.
        neighbors: The graph, N targets.

    Returns:
        (N, C); 0 for a node without neighbours.
    """
    turned = neighbors.transposed if torch.is_grad_enabled() and y.requires_grad else neighbors
    return _sum(y, neighbors.rowptr, neighbors.col, turned.rowptr, turned.col)


@torch.library.custom_op("mgic_geo::neighbor_max", mutates_args=())
def _max(y: Tensor, rowptr: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the maxima (N, C) and, per entry, the edge that attains it (E where there is none)."""
    if y.device.type != "cpu" or not hasattr(torch.ops.aten, "_sparse_mm_reduce_impl"):
        return _max_by_rank(y, rowptr, col)
    # The kernel records the arguments of the maximum only where it believes a gradient is wanted.
    with torch.enable_grad():
        matrix = _csr(rowptr, col, y)
        out, edge = torch.ops.aten._sparse_mm_reduce_impl(matrix, y.detach().requires_grad_(), "amax")
    return out.detach(), edge.detach()


@_max.register_fake
def _(y: Tensor, rowptr: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    shape = (rowptr.size(0) - 1, y.size(1))
    return y.new_empty(shape), col.new_empty(shape)


def _max_setup(ctx, inputs, output) -> None:
    y, _, col = inputs
    ctx.save_for_backward(col, output[1])
    ctx.num_sources = y.size(0)


def _max_backward(ctx, grad: Tensor, _) -> tuple[Tensor, None, None]:
    col, edge = ctx.saved_tensors
    # Edge E stands for "no neighbour": it scatters into an extra row that is dropped.
    source = torch.cat([col, col.new_full((1,), ctx.num_sources)])[edge]
    out = grad.new_zeros(ctx.num_sources + 1, grad.size(1)).scatter_add_(0, source, grad)
    return out[:-1], None, None


_max.register_autograd(_max_backward, setup_context=_max_setup)


@torch.library.custom_op("mgic_geo::neighbor_sum", mutates_args=())
def _sum(y: Tensor, rowptr: Tensor, col: Tensor, turned_rowptr: Tensor, turned_col: Tensor) -> Tensor:
    """The gradient is the same sum over the graph turned round, so that is passed along."""
    if y.device.type == "cpu":
        return torch.sparse.mm(_csr(rowptr, col, y), y, "sum")
    out = y.new_zeros(rowptr.numel() - 1, y.size(1))
    for nodes, edges in _ranks(rowptr):
        out.index_add_(0, nodes, y[col[edges]])
    return out


@_sum.register_fake
def _(y: Tensor, rowptr: Tensor, col: Tensor, turned_rowptr: Tensor, turned_col: Tensor) -> Tensor:
    return y.new_empty(rowptr.size(0) - 1, y.size(1))


def _sum_setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[1:])


def _sum_backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
    rowptr, col, turned_rowptr, turned_col = ctx.saved_tensors
    return _sum(grad.contiguous(), turned_rowptr, turned_col, rowptr, col), None, None, None, None


_sum.register_autograd(_sum_backward, setup_context=_sum_setup)


def _csr(rowptr: Tensor, col: Tensor, y: Tensor) -> Tensor:
    ones = torch.ones(col.numel(), dtype=y.dtype, device=y.device)
    with warnings.catch_warnings():
        # torch announces once per process that its CSR layout is in beta.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        size = (rowptr.numel() - 1, y.size(0))
        return torch.sparse_csr_tensor(rowptr, col, ones, size=size, check_invariants=False)


def _ranks(rowptr: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For rank 0, 1, …: the nodes that have a neighbour of this rank, and the edges to it."""
    degree = rowptr.diff()
    nodes = degree.nonzero().squeeze(1)
    ranks = []
    for rank in range(int(degree.max()) if degree.numel() else 0):
        nodes = nodes[degree[nodes] > rank]
        ranks.append((nodes, rowptr[nodes] + rank))
    return ranks


def _max_by_rank(y: Tensor, rowptr: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
    out = y.new_zeros(rowptr.numel() - 1, y.size(1))
    edge = col.new_full(out.shape, col.numel())
    for rank, (nodes, edges) in enumerate(_ranks(rowptr)):
        candidate, best = y[col[edges]], out[nodes]
        better = candidate > best if rank else torch.ones_like(candidate, dtype=torch.bool)
        out[nodes] = torch.where(better, candidate, best)
        edge[nodes] = torch.where(better, edges.unsqueeze(1), edge[nodes])
    return out, edge
