"""k-nearest neighbours: exact, never all distances at once, float32 even inside autocast."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from numbers import Integral

import torch
from torch import Tensor

from mgic_geo.graph import knn_backends, knn_native, knn_rounded
from mgic_geo.graph.gpu import knn as gpu_knn
from mgic_geo.graph.gpu.faster import faster
from mgic_geo.graph.gpu.when import WAITS, applies
from mgic_geo.graph.knn_chunked import knn_chunked
from mgic_geo.graph.knn_plain import DIRECT_DIMENSIONS, knn_plain

__all__ = ["check_backend", "check_batch", "check_k", "knn", "knn_graph", "knn_table"]


def knn(x: Tensor, k: int, *, backend: str = "auto") -> Tensor:
    r"""The k nearest points of every point, itself included, nearest first.

    Distances are Euclidean. Above four dimensions they come from
    :math:`|x_j|^2 - 2 x_i \cdot x_j` on centred points; the rows in which rounding could have changed who
    is among the k, or in what order, are found by the gaps between the distances and redone from
    differences, so the result is that of differences in float32 (float64 for float64 input). On CPUs
    that multiply small integers, rounded coordinates bound distances, and differences order what is left; on
    GPUs the first call of a size tries two ways and keeps the faster.

    Args:
        x: (B, N, C) points or features, or (N, C) for one cloud.
        k: Number of neighbours, 1 to N.
        backend: ``"torch"`` (``"auto"`` means the same), or the compiled ``"torch_cluster"`` or
            ``"pyg_lib"`` where installed.

    Returns:
        (B, N, k) or (N, k) int64 indices within each cloud. A point comes first in its own row; among
        points at equal distance any may be taken.

    Raises:
        ValueError: On another shape, k outside 1 to N, complex, non-finite or overflowing coordinates, or an
            unknown backend.
        ImportError: If the backend's package is not installed.
    """
    if x.dim() not in (2, 3):
        raise ValueError(f"points have shape (B, N, C) or (N, C), got {tuple(x.shape)}")
    check_k(k)
    check_backend(backend)
    if k > x.size(-2):
        raise ValueError(f"k={k} neighbours (self included) asked of a cloud of {x.size(-2)} points; lower k")
    table = _neighbors(x.unsqueeze(0) if x.dim() == 2 else x, k, loop=True, backend=backend)
    return table.squeeze(0) if x.dim() == 2 else table


def knn_graph(
    x: Tensor,
    k: int,
    batch: Tensor | None = None,
    loop: bool = False,
    flow: str = "source_to_target",
    cosine: bool = False,
    num_workers: int = 1,
    batch_size: int | None = None,
    *,
    backend: str = "auto",
) -> Tensor:
    r"""PyG's :func:`torch_geometric.nn.knn_graph` without a compiled package.

    Args:
        x: (N, C) nodes of all clouds.
        k: Number of neighbours of each node, not counting itself unless ``loop``.
        batch: (N,) ascending cloud index of each node; one cloud by default.
        loop: Count a node as its own (first) neighbour.
        flow: ``"source_to_target"`` puts neighbours in row 0, ``"target_to_source"`` in row 1.
        cosine: Use the cosine distance.
        num_workers: Taken for PyG's signature and unused: torch's own threads do the work.
        batch_size: Number of clouds, checked against ``batch`` where given.
        backend: As in :func:`knn`.

    Returns:
        (2, N·k) int64 edge index: exactly k edges a node, nodes in order, nearest first.

    Raises:
        ValueError: As :func:`knn`, and on a cloud with too few points, an unsorted ``batch`` or an
            unknown ``flow``.
    """
    if flow not in ("source_to_target", "target_to_source"):
        raise ValueError(f"flow must be 'source_to_target' or 'target_to_source', got {flow!r}")
    if cosine:
        x = torch.nn.functional.normalize(_at_least_float32(x), dim=-1)
    neighbor = knn_table(x, k, batch, loop=loop, batch_size=batch_size, backend=backend).flatten()
    node = torch.arange(x.size(0), device=x.device).repeat_interleave(k)
    return torch.stack([neighbor, node] if flow == "source_to_target" else [node, neighbor])


def knn_table(
    x: Tensor,
    k: int,
    batch: Tensor | None = None,
    *,
    loop: bool = True,
    batch_size: int | None = None,
    backend: str = "auto",
) -> Tensor:
    """Neighbours of nodes given as (x, batch): :func:`knn_graph` as a table (N, k) of node indices.

    Raises:
        ValueError: As :func:`knn_graph`.
    """
    if x.dim() != 2:
        raise ValueError(f"nodes have shape (N, C), got {tuple(x.shape)}; knn takes dense (B, N, C) batches")
    check_k(k)
    check_backend(backend)
    sizes = _cloud_sizes(x, batch, batch_size)
    needed = k if loop else k + 1
    for cloud, size in enumerate(sizes):
        if 0 < size < needed:
            raise ValueError(
                f"cloud {cloud} has {size} points, but k={k} with loop={loop} needs at least {needed}; "
                "lower k or leave such clouds out"
            )
    if len(sizes) == 1 and sizes[0] > 0:
        return _neighbors(x.unsqueeze(0), k, loop, backend).view(-1, k)
    if len({*sizes} - {0}) > 1 and backend in ("auto", "torch") and applies(x):
        return _knn_unequal(_at_least_float32(x.detach()), sizes, k, loop)
    return _by_size(x, sizes, k, loop, backend)


def check_k(k: int) -> None:
    """Raise ``ValueError`` unless ``k`` is a number of neighbours."""
    if isinstance(k, bool) or not isinstance(k, Integral) or k < 1:
        raise ValueError(f"k must be an integer of at least 1, got {k!r}")


def check_backend(backend: str) -> None:
    """Raise ``ValueError`` unless ``backend`` is known, installed or not."""
    if backend not in ("auto", "torch", *knn_backends.BACKENDS):
        known = ", ".join(map(repr, ("auto", "torch", *knn_backends.BACKENDS)))
        raise ValueError(f"backend must be one of {known}, got {backend!r}")


def check_batch(batch: Tensor, nodes: int) -> None:
    """Raise ``ValueError`` unless ``batch`` names a cloud for each of the nodes, in ascending order."""
    if batch.shape != (nodes,):
        raise ValueError(f"batch needs one cloud index a node: {nodes} nodes, shape {tuple(batch.shape)}")
    if batch.dtype not in (torch.int64, torch.int32) or (batch.numel() and int(batch.amin()) < 0):
        raise ValueError(
            f"batch holds cloud indices of 0 or more as int64, got {batch.dtype} {batch[:5].tolist()} …"
        )
    if batch.numel() and bool((batch.diff() < 0).any()):
        raise ValueError(
            "batch must be ascending (the nodes of a cloud together); sort x and batch first: "
            "batch, order = batch.sort(stable=True); x = x[order]"
        )


def _cloud_sizes(x: Tensor, batch: Tensor | None, batch_size: int | None) -> list[int]:
    if batch is None:
        return [x.size(0)]
    check_batch(batch, x.size(0))
    sizes = torch.bincount(batch, minlength=batch_size or 0).tolist()
    if batch_size is not None and len(sizes) > batch_size:
        raise ValueError(f"batch names cloud {len(sizes) - 1}, but batch_size={batch_size}")
    return sizes


def _by_size(x: Tensor, sizes: Sequence[int], k: int, loop: bool, backend: str) -> Tensor:
    """Neighbours among nodes (N, k): clouds of one size go together."""
    table = torch.empty(x.size(0), k, dtype=torch.long, device=x.device)
    size = torch.tensor(sizes, device=x.device)
    start = size.cumsum(0) - size
    for points in sorted({*sizes} - {0}):
        first = start[size == points].unsqueeze(1)
        nodes = first + torch.arange(points, device=x.device)
        table[nodes] = _neighbors(x[nodes], k, loop, backend) + first.unsqueeze(2)
    return table


@torch.no_grad()
def _neighbors(x: Tensor, k: int, loop: bool, backend: str) -> Tensor:
    """(B, N, C) to (B, N, k), by the chosen backend."""
    points = _at_least_float32(x.detach())
    if torch.compiler.is_exporting():
        return knn_plain(points, k, loop)  # whatever the backend: nothing but torch is there where it runs
    if backend in ("auto", "torch"):
        return _knn(points, k, loop)
    _square_norms(points, points)  # the compiled packages do not check
    return knn_backends.neighbors(points, k, loop, backend)


def _at_least_float32(x: Tensor) -> Tensor:
    if x.is_complex():
        raise ValueError(f"points have real coordinates, got {x.dtype}; torch.view_as_real gives both parts")
    return x if x.dtype == torch.float64 else x.float()


@torch.library.custom_op("mgic_geo::knn", mutates_args=(), **WAITS)
def _knn(x: Tensor, k: int, loop: bool) -> Tensor:
    if knn_rounded.fits(x, k) and (found := knn_rounded.neighbors(x, k, loop)) is not None:
        return found
    centred = x if x.size(-1) <= DIRECT_DIMENSIONS else x - x.mean(1, keepdim=True)  # less rounding
    norms, largest = _square_norms(x, centred)
    if knn_native.fits(x, k):
        return knn_native.neighbors(x, centred, norms, k, loop)
    if gpu_knn.fits(x, k, largest):
        starts = torch.arange(x.size(0) + 1, device=x.device) * x.size(1)
        flat = x.flatten(0, 1), centred.flatten(0, 1), norms.flatten()
        return faster(
            ("knn", x.device, k, *map(_magnitude, x.shape)),
            lambda: gpu_knn.neighbors(*flat, starts, x.size(1), k, loop).view(*x.shape[:2], k),
            lambda: knn_chunked(x, centred, norms, k, loop),
        )
    return knn_chunked(x, centred, norms, k, loop)


@_knn.register_fake
def _(x: Tensor, k: int, loop: bool) -> Tensor:
    return x.new_empty(x.size(0), x.size(1), k, dtype=torch.long)


@torch.library.custom_op("mgic_geo::knn_unequal", mutates_args=(), **WAITS)
def _knn_unequal(x: Tensor, sizes: Sequence[int], k: int, loop: bool) -> Tensor:
    """Neighbours among nodes (N, k): clouds of any sizes at once, where a kernel takes them."""
    size = torch.tensor(sizes, device=x.device)
    starts = torch.nn.functional.pad(size.cumsum(0), (1, 0))
    cloud = torch.arange(len(sizes), device=x.device).repeat_interleave(size, output_size=x.size(0))
    centred = x
    if x.size(1) > DIRECT_DIMENSIONS:
        centred = x - torch.segment_reduce(x, "mean", lengths=size, unsafe=True)[cloud]
    norms = centred.square().sum(-1)
    if not gpu_knn.fits(x, k, float(norms.amax())):
        return _by_size(x, sizes, k, loop, "torch")
    return gpu_knn.neighbors(x, centred, norms, starts, max(sizes), k, loop) + starts[cloud].unsqueeze(1)


@_knn_unequal.register_fake
def _(x: Tensor, sizes: Sequence[int], k: int, loop: bool) -> Tensor:
    return x.new_empty(x.size(0), k, dtype=torch.long)


def _square_norms(x: Tensor, centred: Tensor) -> tuple[Tensor, float]:
    """Those of centred points, and the largest of them, which is finite."""
    norms = centred.square().sum(-1)
    largest = float(norms.amax()) if norms.numel() else 0.0
    if not isfinite(largest):
        if bool(x.isfinite().all()):
            raise ValueError(
                f"coordinates up to {float(x.abs().max()):.3g} overflow {x.dtype} when squared; "
                "scale them down"
            )
        cloud, point = (~x.isfinite().all(-1)).nonzero()[0].tolist()
        raise ValueError(
            f"points must be finite, but point {point} of cloud {cloud} is {x[cloud, point].tolist()}; "
            "clean the input, or look for a diverging layer"
        )
    return norms, largest


def _magnitude(size: int) -> int:
    """Sizes within a factor of two are alike."""
    return size.bit_length()
