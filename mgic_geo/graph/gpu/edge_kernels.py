"""Triton kernels of EdgeConv: nodes by channels in registers, nothing of edges × channels stored.

A tile is some nodes times some channels. Channel c of u stands at ``c // group * span + c % group`` of a row
of ``row`` numbers, and likewise that of v, which lets both lie in one array, group by group.

Counts that vary from graph to graph are not specialised: each kind of number would be compiled anew, and no
address that is read in one piece depends on them.
"""

# What Triton's functions return is known to its compiler alone.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["edge_gradients", "gather_max", "gather_sum", "join_moments", "norm_apply", "norm_sums"]


@triton.jit
def _tile(rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Places of this program's tile, and which of them are there."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    return row, column, row < rows, column < columns


@triton.jit(do_not_specialize=["nodes", "size"])
def gather_max(
    u, v, rowptr, col, out, best, node_mean, parts, nodes, channels, row, group, span, size,
    HAS_U: tl.constexpr, BEST: tl.constexpr, MOMENTS: tl.constexpr, ACC: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """u_i + the largest v_j, who attains it, and the mean of u_i + v_j of each node and its squares.

    Mean and squares go by Welford's steps, those of the tile's edges by node: nothing cancels.

    BEST: "rank" among the neighbours, "source" within clouds of ``size`` nodes, or "".
    """
    i, c, inside, real = _tile(nodes, channels, ROWS, COLUMNS)
    here = inside[:, None] & real[None, :]
    place = (c // group * span + c % group)[None, :]
    first = tl.load(rowptr + i, mask=inside, other=0)
    degree = tl.load(rowptr + i + 1, mask=inside, other=0) - first
    largest = tl.zeros((ROWS, COLUMNS), ACC)
    mean = tl.zeros((ROWS, COLUMNS), ACC)
    square = tl.zeros((ROWS, COLUMNS), ACC)
    chosen = tl.zeros((ROWS, COLUMNS), tl.int32)
    for rank in range(tl.max(degree, 0).to(tl.int32)):
        there = rank < degree
        j = tl.load(col + first + rank, mask=there, other=0).to(tl.int64)
        value = tl.load(v + j[:, None] * row + place, mask=there[:, None] & real[None, :], other=0).to(ACC)
        better = there[:, None] & ((value > largest) | (value != value) | (rank == 0))
        largest = tl.where(better, value, largest)
        if BEST == "rank":
            chosen = tl.where(better, rank, chosen)
        if BEST == "source":
            chosen = tl.where(better, (j % size).to(tl.int32)[:, None], chosen)
        if MOMENTS:
            step = tl.where(there[:, None], value - mean, 0)
            mean += step * (tl.full((), 1, ACC) / (rank + 1))
            square += step * (value - mean)
    at = i[:, None] * channels + c[None, :]
    if HAS_U:
        on_target = tl.load(u + i[:, None] * row + place, mask=here & (degree > 0)[:, None], other=0).to(ACC)
        largest += on_target
        mean += on_target
    tl.store(out + at, largest.to(out.dtype.element_ty), mask=here)
    if BEST != "":
        tl.store(best + at, chosen.to(best.dtype.element_ty), mask=here)
    if MOMENTS:
        tl.store(node_mean + at, mean, mask=here)
        weight = degree.to(ACC)[:, None]
        count = tl.sum(degree, 0).to(ACC)
        center = tl.sum(weight * mean, 0) / tl.maximum(count, 1)
        delta = mean - center[None, :]
        squares = tl.sum(square + weight * delta * delta, 0)
        # (3, tiles, channels): count, mean and squares of the tile's edges.
        tiles = tl.num_programs(0).to(tl.int64) * channels
        part = parts + tl.program_id(0).to(tl.int64) * channels + c
        tl.store(part, tl.zeros((COLUMNS,), ACC) + count, mask=real)
        tl.store(part + tiles, center, mask=real)
        tl.store(part + 2 * tiles, squares, mask=real)


@triton.jit(do_not_specialize=["nodes"])
def gather_sum(
    v, rowptr, col, out, nodes, channels, ACC: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """The sum of v over a node's neighbours."""
    i, c, inside, real = _tile(nodes, channels, ROWS, COLUMNS)
    first = tl.load(rowptr + i, mask=inside, other=0)
    degree = tl.load(rowptr + i + 1, mask=inside, other=0) - first
    total = tl.zeros((ROWS, COLUMNS), ACC)
    for rank in range(tl.max(degree, 0).to(tl.int32)):
        there = rank < degree
        j = tl.load(col + first + rank, mask=there, other=0).to(tl.int64)
        at = v + j[:, None] * channels + c[None, :]
        total += tl.load(at, mask=there[:, None] & real[None, :], other=0).to(ACC)
    at = out + i[:, None] * channels + c[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=inside[:, None] & real[None, :])


@triton.jit(do_not_specialize=["tiles"])
def join_moments(
    parts, mean, var, tiles, channels, ACC: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Mean and biased variance of all edges from those of tiles, as ``gather_max`` leaves them."""
    _, c, _, real = _tile(1, channels, ROWS, COLUMNS)
    count = tl.zeros((ROWS, COLUMNS), ACC)
    center = tl.zeros((ROWS, COLUMNS), ACC)
    squares = tl.zeros((ROWS, COLUMNS), ACC)
    for start in range(0, tiles, ROWS):
        tile = start + tl.arange(0, ROWS).to(tl.int64)
        there = (tile < tiles)[:, None] & real[None, :]
        at = parts + tile[:, None] * channels + c[None, :]
        further = tl.load(at, mask=there, other=0)
        step = tl.load(at + tl.cast(tiles, tl.int64) * channels, mask=there, other=0) - center
        squares += tl.load(at + 2 * tl.cast(tiles, tl.int64) * channels, mask=there, other=0)
        share = further / tl.maximum(count + further, 1)
        squares += step * step * count * share
        center += step * share
        count += further
    edges = tl.maximum(tl.sum(count, 0), 1)
    overall = tl.sum(count * center, 0) / edges
    delta = center - overall[None, :]
    tl.store(mean + c, overall, mask=real)
    tl.store(var + c, tl.sum(squares + count * delta * delta, 0) / edges, mask=real)


@triton.jit(do_not_specialize=["nodes"])
def norm_apply(
    z, mean, var, weight, bias, out, nodes, channels, eps: tl.constexpr, slope: tl.constexpr,
    ACC: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Normalise z, then the activation with this slope below zero."""
    i, c, inside, real = _tile(nodes, channels, ROWS, COLUMNS)
    at, here = i[:, None] * channels + c[None, :], inside[:, None] & real[None, :]
    center = tl.load(mean + c, mask=real, other=0)
    inv_std_scale = tl.load(weight + c, mask=real, other=0).to(ACC)
    inv_std_scale = inv_std_scale / tl.sqrt(tl.load(var + c, mask=real, other=1) + eps)
    shift = tl.load(bias + c, mask=real, other=0).to(ACC)
    value = (tl.load(z + at, mask=here, other=0) - center[None, :]) * inv_std_scale[None, :] + shift[None, :]
    value = tl.where(value > 0, value, value * slope)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["nodes"])
def norm_sums(
    grad, z, node_mean, mean, var, weight, bias, hidden, parts, nodes, channels,
    eps: tl.constexpr, slope: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradient ahead of the activation, and its sums over the tile's nodes, plain and times z - mean.

    Where the scale is zero all neighbours tie, and their mean stands for z, as in PyG's gradient.
    """
    i, c, inside, real = _tile(nodes, channels, ROWS, COLUMNS)
    at, here = i[:, None] * channels + c[None, :], inside[:, None] & real[None, :]
    center = tl.load(mean + c, mask=real, other=0)
    scale = tl.load(weight + c, mask=real, other=0).to(ACC)
    inv_std_scale = scale / tl.sqrt(tl.load(var + c, mask=real, other=1) + eps)
    shift = tl.load(bias + c, mask=real, other=0).to(ACC)
    value = tl.load(z + at, mask=here, other=0)
    ahead = (value - center[None, :]) * inv_std_scale[None, :] + shift[None, :]
    behind = tl.load(grad + at, mask=here, other=0).to(ACC)
    behind = tl.where(ahead > 0, behind, behind * slope)
    tl.store(hidden + at, behind, mask=here)
    tie = here & (scale == 0)[None, :]
    value = tl.where(tie, tl.load(node_mean + at, mask=tie, other=0), value) - center[None, :]
    part = parts + tl.program_id(0).to(tl.int64) * channels + c
    tl.store(part, tl.sum(behind, 0), mask=real)
    further = tl.num_programs(0).to(tl.int64) * channels
    tl.store(part + further, tl.sum(tl.where(here, behind * value, 0), 0), mask=real)


@triton.jit(do_not_specialize=["nodes", "edges"])
def edge_gradients(
    grad, best, u, v, node_mean, mean, var, weight, sums,
    rowptr, transposed_rowptr, transposed_col, transposed_rank,
    grad_u, grad_v, nodes, channels, row, group, span, edges,
    eps: tl.constexpr, MOMENTS: tl.constexpr, ACC: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradients of u (programs of the third axis's 0) and v (of its 1), each written once.

    ``grad`` is that of u_i + max v_j, or with MOMENTS that behind the normalisation by all edges' moments.
    """
    i, c, inside, real = _tile(nodes, channels, ROWS, COLUMNS)
    here = inside[:, None] & real[None, :]
    at = i[:, None] * channels + c[None, :]
    place = (c // group * span + c % group)[None, :]
    scale = tl.full((COLUMNS,), 1, ACC)
    constant = tl.zeros((COLUMNS,), ACC)
    per_value = tl.zeros((COLUMNS,), ACC)
    center = tl.zeros((COLUMNS,), ACC)
    if MOMENTS:
        center = tl.load(mean + c, mask=real, other=0)
        deviation = tl.sqrt(tl.load(var + c, mask=real, other=1) + eps)
        scale = tl.load(weight + c, mask=real, other=0).to(ACC) / deviation
        constant = -scale * tl.load(sums + c, mask=real, other=0) / edges
        per_value = tl.load(sums + channels + c, mask=real, other=0) / (edges * deviation * deviation)
        per_value = -scale * per_value
    if tl.program_id(2) == 0:
        first = tl.load(rowptr + i, mask=inside, other=0)
        degree = tl.load(rowptr + i + 1, mask=inside, other=0) - first
        some = here & (degree > 0)[:, None]
        total = tl.load(grad + at, mask=some, other=0).to(ACC) * scale[None, :]
        if MOMENTS:
            delta = tl.load(node_mean + at, mask=some, other=0) - center[None, :]
            total += degree.to(ACC)[:, None] * (constant[None, :] + per_value[None, :] * delta)
        tl.store(grad_u + i[:, None] * row + place, total.to(grad_u.dtype.element_ty), mask=here)
    else:
        first = tl.load(transposed_rowptr + i, mask=inside, other=0)
        degree = tl.load(transposed_rowptr + i + 1, mask=inside, other=0) - first
        total = tl.zeros((ROWS, COLUMNS), ACC)
        others = tl.zeros((ROWS, COLUMNS), ACC)
        for k in range(tl.max(degree, 0).to(tl.int32)):
            there = k < degree
            edge = first + k
            target = tl.load(transposed_col + edge, mask=there, other=0).to(tl.int64)
            rank = tl.load(transposed_rank + edge, mask=there, other=0)
            both = there[:, None] & real[None, :]
            seat = target[:, None] * channels + c[None, :]
            attains = both & (tl.load(best + seat, mask=both, other=0).to(tl.int32) == rank[:, None])
            total += tl.load(grad + seat, mask=attains, other=0).to(ACC)
            if MOMENTS:
                others += tl.load(u + target[:, None] * row + place, mask=both, other=0).to(ACC)
        total *= scale[None, :]
        if MOMENTS:
            own = tl.load(v + i[:, None] * row + place, mask=here, other=0).to(ACC) - center[None, :]
            count = degree.to(ACC)[:, None]
            total += count * constant[None, :] + per_value[None, :] * (others + count * own)
        tl.store(grad_v + i[:, None] * row + place, total.to(grad_v.dtype.element_ty), mask=here)
