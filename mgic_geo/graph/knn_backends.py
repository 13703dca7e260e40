"""Compiled k-NN packages behind :func:`mgic_geo.knn`; opt-in, never needed."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from mgic_geo.graph.gpu.when import WAITS

__all__ = ["BACKENDS", "available", "neighbors"]

BACKENDS = ("torch_cluster", "pyg_lib")

_REMEDY = {
    "torch_cluster": "install the extra: pip install --no-build-isolation 'mgic-geo[cluster]' "
    "(it compiles for minutes)",
    "pyg_lib": "install pyg-lib >= 0.6 by the PyG project's instructions (it is not on PyPI)",
}


def available(backend: str) -> bool:
    """Whether the package of ``"torch_cluster"`` or ``"pyg_lib"`` is installed and has k-NN."""
    if importlib.util.find_spec(backend) is None:
        return False
    if backend == "pyg_lib":
        import pyg_lib  # type: ignore[import-not-found]

        return hasattr(pyg_lib.ops, "knn")
    return True


@torch.library.custom_op("mgic_geo::knn_backend", mutates_args=(), **WAITS)
def neighbors(x: Tensor, k: int, loop: bool, backend: str) -> Tensor:
    """Neighbour table of dense clouds from a compiled package.

    Args:
        x: (B, N, C) finite float32 or float64 points.
        k: Number of neighbours.
        loop: Whether a point is its own first neighbour, or none at all.
        backend: ``"torch_cluster"`` or ``"pyg_lib"``.

    Returns:
        (B, N, k) indices within each cloud.

    Raises:
        ImportError: If its package is missing, with the remedy.
    """
    if not available(backend):
        raise ImportError(f"backend={backend!r} is not installed: {_REMEDY[backend]}; or use backend='torch'")
    clouds, points, _ = x.shape
    flat = x.flatten(0, 1)
    # One more than asked: a point may be missing from its own row when more than k others coincide with it.
    keep = min(k + 1, points)
    pointers = torch.arange(clouds + 1, device=x.device) * points
    if backend == "torch_cluster":
        from torch_cluster import knn as cluster_knn  # type: ignore[import-not-found]

        batch = torch.arange(clouds, device=x.device).repeat_interleave(points)
        found = cluster_knn(flat, flat, keep, batch, batch)[1]
    else:
        found = torch.ops.pyg.knn(flat, flat, pointers, pointers, keep, False, 1)[1]
    table = found.view(clouds, points, keep) - pointers[:-1].view(-1, 1, 1)
    itself = torch.arange(points, device=x.device).view(1, -1, 1)
    others_first = (table == itself).int().sort(dim=-1, stable=True).indices
    others = table.gather(-1, others_first)
    return torch.cat([itself.expand(clouds, -1, 1), others], -1)[..., :k] if loop else others[..., :k]


@neighbors.register_fake
def _(x: Tensor, k: int, loop: bool, backend: str) -> Tensor:
    return x.new_empty(x.size(0), x.size(1), k, dtype=torch.long)
