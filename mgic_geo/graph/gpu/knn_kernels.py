"""The Triton kernel of k-NN: distances and selection at once, so that no distance is ever stored."""

# What Triton's functions return is known to its compiler alone.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportOperatorIssue=false
from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["nearest"]


@triton.jit(do_not_specialize=["queries"])
def nearest(
    x, norms, starts, listed, clouds, table, doubt, queries, channels, keep, k, factor,
    DIRECT: tl.constexpr, LISTED: tl.constexpr, LOOP: tl.constexpr, KEEP: tl.constexpr,
    QUERIES: tl.constexpr, POINTS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The k nearest points of each query within its cloud, nearest first, as places within the cloud.

    Cloud i are the points from ``starts[i]`` up to ``starts[i + 1]``.

    What is near is kept in ``KEEP`` unsorted places of which ``keep`` count; a point that beats the worst of
    them takes its place, and in most tiles of points there soon is none.

    DIRECT: squared differences, channel by channel; else |x_j|² - 2 x_i·x_j, and ``doubt`` where two of these
    that follow each other lie within rounding, ``factor`` · (|x_i| + reach)².
    LISTED: the queries are those of the list, in these ``clouds``; else all of each, ``queries`` at most.
    """
    blocks = tl.cdiv(queries, QUERIES)
    q = tl.program_id(0) % blocks * QUERIES + tl.arange(0, QUERIES)
    if LISTED:
        real = q < queries
        cloud = tl.load(clouds + q, mask=real, other=0)
        start = tl.load(starts + cloud, mask=real, other=0)
        size = tl.load(starts + cloud + 1, mask=real, other=0) - start
        longest = tl.max(size, 0).to(tl.int32)
        q = tl.load(listed + q, mask=real, other=0)
        own = (q - start).to(tl.int32)
    else:
        cloud = tl.program_id(0) // blocks
        start = tl.load(starts + cloud)
        size = (tl.load(starts + cloud + 1) - start).to(tl.int32)
        real = q < size
        longest = tl.where(tl.max(real.to(tl.int32), 0) > 0, size, 0)
        own = q
        q = start + q
    of_query = x + q * channels
    slot = tl.arange(0, KEEP)
    p = tl.arange(0, POINTS)
    c = tl.arange(0, CHUNK)
    # Places beyond ``keep`` are never the worst.
    near = tl.zeros((QUERIES, KEEP), tl.float32)
    near = tl.where((slot < keep)[None, :], float("inf"), near - float("inf"))
    who = tl.zeros((QUERIES, KEEP), tl.int32)
    worst = tl.full((QUERIES,), float("inf"), tl.float32)
    for past in range(0, longest, POINTS):
        j = past + p
        inside = j < longest
        there = j[None, :] < size[:, None] if LISTED else real[:, None] & inside[None, :]
        distance = tl.zeros((QUERIES, POINTS), tl.float32)
        if DIRECT:
            for channel in range(channels):
                here = tl.load(of_query + channel, mask=real, other=0)
                if LISTED:
                    at = x + (start[:, None] + j[None, :]) * channels + channel
                    other = tl.load(at, mask=there, other=0)
                else:
                    at = x + (start + j) * channels + channel
                    other = tl.load(at, mask=inside, other=0)[None, :]
                delta = here[:, None] - other
                distance += delta * delta
        else:
            of_point = x + (start + j) * channels
            for first in range(0, channels, CHUNK):
                part = first + c < channels
                here = tl.load(of_query[:, None] + first + c, mask=real[:, None] & part[None, :], other=0)
                other = tl.load(of_point[:, None] + first + c, mask=inside[:, None] & part[None, :], other=0)
                distance = tl.dot(here, tl.trans(other), distance, input_precision="ieee")
            square = tl.load(norms + start + j, mask=inside, other=0)
            distance = square[None, :] - 2 * distance
        distance = tl.where(j[None, :] == own[:, None], float("-inf") if LOOP else float("inf"), distance)
        distance = tl.where(there, distance, float("inf"))
        lowest, place = tl.min(distance, 1, return_indices=True)
        while tl.max((lowest < worst).to(tl.int32), 0) > 0:
            better = lowest < worst
            _, last = tl.max(near, 1, return_indices=True)
            hit = better[:, None] & (slot[None, :] == last[:, None])
            near = tl.where(hit, lowest[:, None], near)
            who = tl.where(hit, (past + place)[:, None], who)
            worst = tl.max(near, 1)
            distance = tl.where(better[:, None] & (p[None, :] == place[:, None]), float("inf"), distance)
            lowest, place = tl.min(distance, 1, return_indices=True)
    near = tl.where((slot < keep)[None, :], near, float("inf"))
    before = tl.full((QUERIES,), float("-inf"), tl.float32)
    gap = tl.full((QUERIES,), float("inf"), tl.float32)
    kth = before
    for rank in range(keep):
        lowest, place = tl.min(near, 1, return_indices=True)
        hit = slot[None, :] == place[:, None]
        chosen = tl.sum(tl.where(hit, who, 0), 1)
        if rank < k:  # one more is looked at, for the gap behind the k-th
            tl.store(table + q * k + rank, chosen.to(tl.int64), mask=real)
        near = tl.where(hit, float("inf"), near)
        follows = (before > float("-inf")) & (lowest < float("inf"))
        step = tl.where(follows, lowest, 0) - tl.where(follows, before, 0)
        gap = tl.where(follows, tl.minimum(gap, step), gap)
        kth = tl.where(rank == k - 1, lowest, kth)
        before = lowest
    if not DIRECT:
        square = tl.load(norms + q, mask=real, other=0)
        span = tl.sqrt(square) + tl.sqrt(tl.maximum(kth + square, 0))
        tl.store(doubt + q, gap <= 2 * factor * span * span, mask=real)
