"""What is wrong with features or a graph, in words, before torch says it in its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor

__all__ = [
    "OF_EDGES",
    "check_edge_range",
    "check_edges",
    "check_features",
    "check_range",
    "index_of",
    "of_type",
    "unseen",
]

OF_EDGES = ("edge_weight", "edge_attr", "edge_type")


def check_features(x: Any, channels: int, *, clouds: bool = True, stacked: bool = False) -> None:
    """Look at the type, dimensions and width of features of nodes.

    Args:
        x: Should be (nodes, channels), or dense clouds (B, N, channels).
        channels: Their width; any, if -1.
        clouds: Whether dense clouds are taken.
        stacked: Whether any axes may lead instead, (..., nodes, channels), as in PyG's own layers.

    Raises:
        TypeError: If it is no tensor.
        ValueError: If it has another shape, or no floating-point numbers.
    """
    if not isinstance(x, Tensor):
        told = "; pass data.x and data.edge_index" if hasattr(x, "edge_index") else ""
        raise TypeError(f"x is a tensor of the nodes' features, got {type(x).__name__}{told}")
    if x.dim() < 2 or (x.dim() > (3 if clouds else 2) and not stacked):
        shape = "(nodes, channels), or dense clouds (B, N, channels)" if clouds else "(nodes, channels)"
        shape = "(..., nodes, channels)" if stacked else shape
        raise ValueError(f"x has shape {shape}, got {tuple(x.shape)}")
    # Two comparisons: torch's compiler, before 2.14, did not find a width that varies in a tuple.
    if (channels != -1 and channels != x.size(-1)) or not x.is_floating_point():
        width = "" if channels == -1 else f"in_channels={channels} "
        raise ValueError(f"x needs {width}floating-point channels, got shape {tuple(x.shape)} of {x.dtype}")


def index_of(index: Tensor) -> Tensor:
    """An index as torch sums by it: of 64 bits, and no tensor of inference mode where a gradient needs it."""
    index = index.long()
    kept = torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or not index.is_inference()
    return index if kept else index.clone()


def check_edges(inputs: Mapping[str, Any]) -> None:
    """Compare shapes of what a layer takes by name; forms of a graph other than an edge index pass.

    Raises:
        ValueError: If ``edge_index`` is no (2, E) of integers, or something of its edges has another length.
    """
    edge_index = inputs.get("edge_index")
    if not _is_index(edge_index):
        return
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(
            f"edge_index has shape (2, E), sources above targets, got {tuple(edge_index.shape)}; transpose a "
            "list of pairs with .t()"
        )
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"edge_index holds integers, got {edge_index.dtype}; convert it with .long()")
    edges = edge_index.size(1)
    for name in OF_EDGES:
        value = inputs.get(name)
        if isinstance(value, Tensor) and (value.dim() == 0 or value.size(0) != edges):
            raise ValueError(
                f"{name} needs a row for each of the {edges} edges of edge_index, got shape "
                f"{tuple(value.shape)}; select and sort it as the edges were"
            )


def of_type(name: str, values: Any, x: Tensor) -> Any:
    """Floating-point values of edges in the type of the features, which they would widen; all else as it is.

    Weights are factors of features, so integers and booleans become floating-point, too; in ``edge_attr`` or
    ``edge_type`` they may be indices. Under autocast, where features may be narrow, in at least single
    precision.
    """
    if not isinstance(values, Tensor) or not (values.is_floating_point() or name == "edge_weight"):
        return values
    narrow = torch.is_autocast_enabled(x.device.type)
    return values.to(torch.promote_types(x.dtype, torch.float32) if narrow else x.dtype)


def check_edge_range(edge_index: Any, sources: int, targets: int, flow: str = "source_to_target") -> None:
    """Look whether an edge index points outside the nodes; other forms of a graph pass.

    That costs a pass over it, so layers that would fail look once they have.

    Raises:
        ValueError: If it does.
    """
    if not _is_index(edge_index):
        return
    source, target = edge_index if flow == "source_to_target" else edge_index.flip(0)
    check_range(source, sources, "source indices")
    check_range(target, targets, "target indices")


def check_range(index: Tensor, nodes: int, what: str, hint: str = "does x hold all nodes?") -> None:
    """Raise ``ValueError`` unless ``index`` lies in [0, nodes), where there are values to look at.

    Compiled code asserts it on the device, as torch's own indexing does: kernels read what they are told.
    """
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        inside = ((index >= 0) & (index < nodes)).all()
        torch.ops.aten._assert_async.msg(inside, f"{what} must lie within the nodes; {hint}")
    if unseen(index) or not index.numel():
        return
    low, high = map(int, index.aminmax())
    if low < 0 or high >= nodes:
        raise ValueError(f"{what} must lie in [0, {nodes}), got {low} to {high}; {hint}")


def unseen(index: Tensor) -> bool:
    """Whether there are no values to look at, or a look would break a graph that is compiled."""
    return torch.compiler.is_compiling() or index.is_meta


def _is_index(graph: Any) -> TypeGuard[Tensor]:
    return isinstance(graph, Tensor) and graph.layout == torch.strided
