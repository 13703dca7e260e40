"""Neighbours that rounding in a matrix product could have swapped, chosen again by differences."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["refine"]


def refine(
    clouds: Tensor,
    start: int,
    distance: Tensor,
    norm: Tensor,
    value: Tensor,
    index: Tensor,
    k: int,
    loop: bool,
    most: int,
) -> None:
    """Choose again, by differences of the points as given, where rounding could have decided.

    The sorted ``value`` is |x_j|² - 2 x_i·x_j, so a point within reach d of x_i has |x_j| <= |x_i| + d, and
    rounding moves its value by less than 1.5 · eps · sqrt(C) · (|x_i| + d)² (the largest seen was 1.2).

    Args:
        clouds: (B, N, C) the points as given.
        start: Place of the first query in its cloud.
        distance: (B, R, N) all values of the queries; overwritten.
        norm: (B, R) squared norms of the queries.
        value: (B, R, K) the least values, ascending, those of k neighbours and, where there is one, the next.
        index: (B, R, K) their points; corrected in place.
        k: Number of neighbours.
        loop: Whether a point is its own first neighbour.
        most: Number of candidates' coordinates held at once: where points coincide all rows are in doubt.
    """
    reach = (value[..., k - 1] + norm).clamp(min=0).sqrt()
    noise = 1.5 * torch.finfo(value.dtype).eps * clouds.size(-1) ** 0.5 * (norm.sqrt() + reach).square()
    in_doubt = (value.diff(dim=-1) <= 2 * noise.unsqueeze(-1)).any(-1).nonzero()
    few = min(4 * value.size(-1), clouds.size(1))
    itself = -torch.inf if loop else torch.inf
    for part in in_doubt.split(max(1, most // (few * clouds.size(-1)))):
        cloud, row = part.unbind(1)
        candidate_value, candidate = distance[cloud, row].topk(few, largest=False)
        exact = clouds[cloud.unsqueeze(1), candidate].sub_(clouds[cloud, start + row].unsqueeze(1))
        exact = exact.square_().sum(-1).masked_fill(candidate == (start + row).unsqueeze(1), itself)
        exact, order = exact.sort(dim=-1, stable=True)
        index[cloud, row] = candidate.gather(1, order[:, : index.size(-1)])
        if few == clouds.size(1):
            continue
        # Behind the last candidate nothing is nearer than the k-th, unless rounding hid it.
        last, kth, doubt = candidate_value[:, -1] + norm[cloud, row], exact[:, k - 1], noise[cloud, row]
        open_ = (kth > 0) & (kth > last - doubt)
        for b in cloud[open_].unique().tolist():
            rest = row[open_ & (cloud == b)]
            full = torch.cdist(
                clouds[b, start + rest], clouds[b], compute_mode="donot_use_mm_for_euclid_dist"
            )
            full[torch.arange(len(rest), device=rest.device), start + rest] = itself
            index[b, rest] = full.topk(index.size(-1), largest=False).indices
