"""When a layer may propagate by its own form, and PyG's propagation for all other cases."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.nn import MessagePassing

from mgic_geo.graph.edges.edge_csr import EdgeCSR
from mgic_geo.graph.edges.scatter import aggregate
from mgic_geo.native import followed, in_transform

__all__ = [
    "edgewise",
    "gather_messages",
    "messages_observed",
    "plain_edges",
    "plain_propagate",
    "plain_update",
]

_REDUCED = ("add", "sum", "mean", "max", "min")

_HOOKS = tuple(
    f"_{part}_forward_{when}"
    for part in ("propagate", "message", "aggregate", "edge_update")
    for when in ("pre_hooks", "hooks")
)


def plain_edges(layer: MessagePassing, edge_index: Any) -> bool:
    """Whether edges are an index in PyG's usual direction, and nobody looks at single messages.

    Nor do layers keep their own forms while a transform of ``torch.func`` or a trace is at work.
    """
    return (
        type(edge_index) is Tensor
        and edge_index.layout == torch.strided
        and layer.flow == "source_to_target"
        and layer.decomposed_layers == 1
        and not messages_observed(layer)
        and not in_transform()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
    )


def messages_observed(layer: MessagePassing) -> bool:
    """Whether somebody looks at single messages: an explainer, which masks them, or PyG's hooks."""
    return bool(layer.explain) or any(getattr(layer, name) for name in _HOOKS)


def edgewise(layer: MessagePassing, edge_index: Any, *features: Tensor | None) -> bool:
    """Whether a layer's form for the edges of a CPU graph applies: plain edges, single or double precision.

    Compiled code keeps PyG's propagation, whose steps the compiler fuses by itself; so do autocast and who
    follows torch's operators, to count them, say: a form adds rows up where the layer's definition does not.
    """
    dtypes = {x.dtype for x in features if x is not None}
    return (
        not followed()
        and not torch.is_autocast_enabled("cpu")
        and plain_edges(layer, edge_index)
        and dtypes in ({torch.float32}, {torch.float64})
        and all(x is None or x.device.type == "cpu" for x in features)
    )


def plain_propagate(layer: MessagePassing, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    """PyG's propagation of a layer whose class has its own."""
    run = _generated(layer, "_jinja_propagate") or MessagePassing.propagate
    return run(layer, edge_index, size=size, **features)


def plain_update(layer: MessagePassing, edge_index: Any, size: Any = None, **features: Any) -> Tensor:
    """PyG's update of edges of a layer whose class has its own."""
    run = _generated(layer, "_jinja_edge_updater") or MessagePassing.edge_updater
    return run(layer, edge_index, size=size, **features)


def gather_messages(layer: MessagePassing, edges: EdgeCSR, messages: Tensor) -> Tensor:
    """The aggregation of a layer's messages (E, ...) at their targets: (targets, ...)."""
    if layer.aggr in _REDUCED and messages.dim() == 2:
        return aggregate(edges, messages, layer.aggr)
    return layer.aggr_module(messages, edges.target, None, edges.targets, 0)


def _generated(layer: MessagePassing, name: str) -> Any:
    """What PyG generated for the class that a form derives from, which the compiler can follow."""
    if not torch.compiler.is_compiling():
        return None
    return next((vars(base)[name] for base in type(layer).__mro__[1:] if name in vars(base)), None)
