"""Maximum and sum over neighbours without anything of size edges × channels.

Both are registered operators: autograd and ``torch.compile`` see one node. On CPU they are torch's
sparse-times-dense kernels with a reduction; on a GPU one Triton kernel; elsewhere a loop over the j-th
neighbour of all nodes at once, which holds a few (N, C) buffers. All give the same values, and so do the
plain operators that ``torch.export`` gets instead, since an exported program must run where this package is
not installed, and that ``torch.func`` gets, which knows no gradients of ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mgic_geo.graph.gpu import reduce as gpu
from mgic_geo.graph.gpu.when import REDUCES, serves
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.native import in_transform

__all__ = ["neighbor_max", "neighbor_sum"]

# Clouds are worked off a few at a time, so that temporaries of this many values stay in the cache.
_CHUNK = 2**18
_SPARSE = (torch.float32, torch.float64)


def neighbor_max(y: Tensor, neighbors: Neighbors) -> Tensor:
    """The largest value per channel over each node's neighbours.

    The gradient goes to the neighbour that attains the maximum, to one of them where several do.

    Args:
        y: (num_sources, C) finite features.
        neighbors: The graph, N targets.

    Returns:
        (N, C); 0 for a node without neighbours, as PyG's aggregations.

    Raises:
        ValueError: If ``y`` has other rows than the graph has sources, or is on another device.
    """
    _check(y, neighbors)
    if torch.compiler.is_exporting() or in_transform():
        return _plain(y, neighbors, "amax")
    if torch.is_grad_enabled() and y.requires_grad:
        out = _max(y, neighbors.rowptr, neighbors.col, neighbors.clouds)[0]
    else:
        out = _values(y, neighbors.rowptr, neighbors.col, neighbors.clouds)
    return out * (neighbors.in_degree > 0).unsqueeze(1) if neighbors.has_isolated else out


def neighbor_sum(y: Tensor, neighbors: Neighbors) -> Tensor:
    """The sum per channel over each node's neighbours.

    Args:
        y: (num_sources, C) features.
        neighbors: The graph, N targets.

    Returns:
        (N, C); 0 for a node without neighbours.

    Raises:
        ValueError: As :func:`neighbor_max`.
    """
    _check(y, neighbors)
    if torch.compiler.is_exporting() or in_transform():
        return _plain(y, neighbors, "sum")
    transposed = neighbors.transposed if torch.is_grad_enabled() and y.requires_grad else neighbors
    return _sum(y, neighbors.rowptr, neighbors.col, transposed.rowptr, transposed.col)


def _check(y: Tensor, neighbors: Neighbors) -> None:
    if y.size(0) != neighbors.num_sources or y.device != neighbors.col.device:
        raise ValueError(
            f"y needs a row for each of the graph's {neighbors.num_sources} sources, on "
            f"{neighbors.col.device}; got shape {tuple(y.shape)} on {y.device}"
        )


def _plain(y: Tensor, neighbors: Neighbors, reduce: str) -> Tensor:
    """What exported programs and function transforms run: gathered rows, reduced by torch's own operators."""
    rows = y[neighbors.col]
    if neighbors.degree:
        table = rows.view(-1, neighbors.degree, y.size(1))
        return table.amax(1) if reduce == "amax" else table.sum(1)
    nodes = neighbors.row.unsqueeze(1).expand_as(rows)
    out = y.new_zeros(neighbors.num_targets, y.size(1))
    return out.scatter_reduce(0, nodes, rows, reduce, include_self=False)


@torch.library.custom_op("mgic_geo::neighbor_max_values", mutates_args=(), **REDUCES)
def _values(y: Tensor, rowptr: Tensor, col: Tensor, clouds: int) -> Tensor:
    """Maxima (N, C) where no gradient will ask which sources attain them."""
    if y.device.type == "cpu" and y.dtype in _SPARSE and col.numel():
        return torch.sparse.mm(_csr(rowptr, col, y), y, "amax")
    return _max(y, rowptr, col, clouds)[0]


@_values.register_fake
def _(y: Tensor, rowptr: Tensor, col: Tensor, clouds: int) -> Tensor:
    return y.new_empty(rowptr.size(0) - 1, y.size(1))


@torch.library.custom_op("mgic_geo::neighbor_max", mutates_args=(), **REDUCES)
def _max(y: Tensor, rowptr: Tensor, col: Tensor, clouds: int) -> tuple[Tensor, Tensor]:
    """Maxima (N, C) and the sources that attain them, int32 within each cloud (any, where there is none)."""
    if serves(y):
        return gpu.neighbor_max(y, rowptr, col, clouds)
    if y.device.type != "cpu":
        return _max_by_rank(y, rowptr, col, clouds)
    targets, sources, edges = (rowptr.numel() - 1) // clouds, y.size(0) // clouds, col.numel() // clouds
    out = y.new_empty(targets * clouds, y.size(1))
    best = out.new_empty(out.shape, dtype=torch.int32)
    if edges == 0:
        return out.zero_(), best.zero_()
    step = max(1, min(clouds, _CHUNK // max(1, sources * y.size(1))))
    for first in range(0, clouds, step):
        last = min(first + step, clouds)
        part = slice(first * targets, last * targets)
        chunk = y[first * sources : last * sources]
        matrix_rows = rowptr[: (last - first) * targets + 1]
        matrix_cols = col[first * edges : last * edges] - first * sources
        kernel = _max_with_edges if y.dtype == torch.float64 else _max_packed
        out[part], best[part] = kernel(chunk, matrix_rows, matrix_cols, sources)
    return out, best


@_max.register_fake
def _(y: Tensor, rowptr: Tensor, col: Tensor, clouds: int) -> tuple[Tensor, Tensor]:
    shape = (rowptr.size(0) - 1, y.size(1))
    return y.new_empty(shape), y.new_empty(shape, dtype=torch.int32)


def _max_setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(output[1])
    ctx.sources, ctx.clouds = inputs[0].size(0), inputs[3]
    ctx.mark_non_differentiable(output[1])


def _max_backward(ctx, grad: Tensor, _) -> tuple[Tensor, None, None, None]:
    return _max_grad(grad.contiguous(), ctx.saved_tensors[0], ctx.sources, ctx.clouds), None, None, None


_max.register_autograd(_max_backward, setup_context=_max_setup)


@torch.library.custom_op("mgic_geo::neighbor_max_grad", mutates_args=())
def _max_grad(grad: Tensor, best: Tensor, sources: int, clouds: int) -> Tensor:
    channels = grad.size(1)
    out = grad.new_zeros(clouds, sources // clouds, channels)
    grad, best = grad.view(clouds, -1, channels), best.view(clouds, -1, channels)
    step = max(1, min(clouds, _CHUNK // max(1, grad[0].numel()))) if grad.device.type == "cpu" else clouds
    for part in (slice(first, first + step) for first in range(0, clouds, step)):
        out[part].scatter_add_(1, best[part].long(), grad[part])
    return out.view(sources, channels)


@_max_grad.register_fake
def _(grad: Tensor, best: Tensor, sources: int, clouds: int) -> Tensor:
    return grad.new_empty(sources, grad.size(1))


def _max_grad_setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.clouds = inputs[3]


def _max_grad_backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
    """Where the gradient went, the second one comes from."""
    (best,) = ctx.saved_tensors
    shape = (ctx.clouds, -1, best.size(1))
    return grad.reshape(shape).gather(1, best.view(shape).long()).view(best.shape), None, None, None


_max_grad.register_autograd(_max_grad_backward, setup_context=_max_grad_setup)


@torch.library.custom_op("mgic_geo::neighbor_sum", mutates_args=(), **REDUCES)
def _sum(y: Tensor, rowptr: Tensor, col: Tensor, transposed_rowptr: Tensor, transposed_col: Tensor) -> Tensor:
    """The gradient is the same sum over the transposed graph, so that is passed along."""
    if serves(y):
        return gpu.neighbor_sum(y, rowptr, col)
    if y.device.type == "cpu":
        return torch.sparse.mm(_csr(rowptr, col, y), y, "sum")
    out = y.new_zeros(rowptr.numel() - 1, y.size(1))
    for nodes, edges in _ranks(rowptr):
        out.index_add_(0, nodes, y[col[edges]])
    return out


@_sum.register_fake
def _(y: Tensor, rowptr: Tensor, col: Tensor, transposed_rowptr: Tensor, transposed_col: Tensor) -> Tensor:
    return y.new_empty(rowptr.size(0) - 1, y.size(1))


def _sum_setup(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs[1:])


def _sum_backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
    rowptr, col, transposed_rowptr, transposed_col = ctx.saved_tensors
    return _sum(grad.contiguous(), transposed_rowptr, transposed_col, rowptr, col), None, None, None, None


_sum.register_autograd(_sum_backward, setup_context=_sum_setup)


def _csr(rowptr: Tensor, col: Tensor, y: Tensor) -> Tensor:
    ones = y.new_ones(col.numel())
    size = (rowptr.numel() - 1, y.size(0))
    return torch.sparse_csr_tensor(rowptr, col, ones, size=size, check_invariants=False)


def _max_packed(y: Tensor, rowptr: Tensor, col: Tensor, sources: int) -> tuple[Tensor, Tensor]:
    """Maximum and source at once: the source's number rides in mantissa bits that float32 leaves free.

    As float64 a float32 has 29 zero bits at its end; numbers put there order equal values only, so the
    fast kernel without arguments (about ten times faster than the one with) tells both, exactly.
    """
    packed = y.double()
    number = torch.arange(sources, device=y.device).repeat(y.size(0) // sources).unsqueeze(1)
    packed.view(torch.int64).bitwise_or_(number)
    bits = torch.sparse.mm(_csr(rowptr, col, packed), packed, "amax").view(torch.int64)
    best = bits.bitwise_and(2**29 - 1).clamp_(max=sources - 1)  # a maximum that is nan has lost its number
    return bits.bitwise_and_(-(2**29)).view(torch.float64), best


def _max_with_edges(y: Tensor, rowptr: Tensor, col: Tensor, sources: int) -> tuple[Tensor, Tensor]:
    """Maximum and source for float64, which leaves no bits free."""
    with torch.enable_grad():  # the kernel records arguments only where it believes a gradient is wanted
        matrix = _csr(rowptr, col, y)
        out, edge = torch.ops.aten._sparse_mm_reduce_impl(matrix, y.detach().requires_grad_(), "amax")
    col = torch.cat(
        [col % sources, col.new_zeros(1)]
    )  # a node without neighbours names the edge behind the last
    return out.detach(), col.take(edge.detach())


def _ranks(rowptr: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For rank 0, 1, …: the nodes that have a neighbour of this rank, and the edges to it."""
    degree = rowptr.diff()
    nodes = degree.nonzero().squeeze(1)
    ranks = []
    for rank in range(int(degree.max()) if degree.numel() else 0):
        nodes = nodes[degree[nodes] > rank]
        ranks.append((nodes, rowptr[nodes] + rank))
    return ranks


def _max_by_rank(y: Tensor, rowptr: Tensor, col: Tensor, clouds: int) -> tuple[Tensor, Tensor]:
    out = y.new_zeros(rowptr.numel() - 1, y.size(1))
    best = torch.zeros(out.shape, dtype=torch.int32, device=y.device)
    sources = (col % max(1, y.size(0) // clouds)).int()
    for rank, (nodes, edges) in enumerate(_ranks(rowptr)):
        candidate, largest = y[col[edges]], out[nodes]
        better = candidate > largest if rank else torch.ones_like(candidate, dtype=torch.bool)
        out[nodes] = torch.where(better, candidate, largest)
        best[nodes] = torch.where(better, sources[edges].unsqueeze(1), best[nodes])
    return out, best
