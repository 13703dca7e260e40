"""How any message-passing layer is built from two widths, an input's and an output's."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn
from torch_geometric import nn as pyg
from torch_geometric.nn import MLP

__all__ = ["Builder", "construct", "networks_of", "parameters_of"]

Builder = Callable[..., nn.Module]

_POINT, _PAIR = 3, 4  # coordinates of a point; features of a pair of points with normals


def _mlp(in_channels: int, out_channels: int) -> MLP:
    return MLP([in_channels, out_channels, out_channels], norm=None)


# Layers that are given networks: from the widths (c_in, c_out), and edge_dim where a network reads edges.
_NETWORKS: dict[Builder, Callable[..., dict[str, nn.Module]]] = {
    pyg.EdgeConv: lambda a, b: {"nn": _mlp(2 * a, b)},
    pyg.DynamicEdgeConv: lambda a, b: {"nn": _mlp(2 * a, b)},
    pyg.GINConv: lambda a, b: {"nn": _mlp(a, b)},
    pyg.GINEConv: lambda a, b: {"nn": _mlp(a, b)},
    pyg.NNConv: lambda a, b, edge_dim: {"nn": MLP([edge_dim, a, a * b], norm=None)},
    pyg.PointGNNConv: lambda a, b: {
        "mlp_h": _mlp(a, _POINT),
        "mlp_f": _mlp(a + _POINT, b),
        "mlp_g": _mlp(b, a),
    },
    pyg.PointNetConv: lambda a, b: {"local_nn": _mlp(a + _POINT, b)},
    pyg.PPFConv: lambda a, b: {"local_nn": _mlp(a + _PAIR, b)},
}


def construct(
    conv: Builder, in_channels: int, out_channels: int, options: dict[str, Any], **overrides: Any
) -> nn.Module:
    """Build ``conv`` for two widths, whatever its own first parameters are.

    A layer that is given networks (GINConv, NNConv, PointNetConv, ...) gets them, of two linear maps each,
    for 3-dimensional positions. Of attention layers with concatenated heads ``out_channels`` is the whole
    output width. Layers with one width only (``GCN2Conv(channels, alpha)``) or none (``LGConv()``) keep it.

    Args:
        conv: The layer's class, or a callable ``conv(in_channels, out_channels, **options)``.
        in_channels: Width of the input.
        out_channels: Width of the output.
        options: The layer's other arguments; modules among them are copied.
        **overrides: More of them, which come first.

    Raises:
        ValueError: If a layer that keeps its width is given two, heads do not divide the width, or an option
            is a network that depends on the width.
    """
    options = copy.deepcopy({**options, **overrides})  # no two layers share a module
    name = getattr(conv, "__name__", str(conv))
    given, networks = parameters_of(conv), networks_of(conv)
    if networks is not None:
        needs = [key for key in parameters_of(networks) if key == "edge_dim"]
        if missing := [key for key in needs if key not in options]:
            raise ValueError(f"{name}'s network reads the edges: give {missing[0]}, their width")
        made = networks(in_channels, out_channels, **{key: options.pop(key) for key in needs})
        for key in made:
            if key in options:
                raise ValueError(
                    f"{name}'s {key} depends on each level's width, so it is built here: leave {key} out"
                )
        options.update(made)
    if _value(conv, "concat", options):
        out_channels = _width_of_a_head(out_channels, _value(conv, "heads", options) or 1)
    if "in_channels" in given and "out_channels" in given:
        return conv(in_channels, out_channels, **options)
    if "out_channels" in given:  # narrower inputs are padded by the layer
        return conv(out_channels, **options)
    if networks is not None and conv is not pyg.PointGNNConv:  # which adds its input
        return conv(**options)
    width = [key for key in ("channels", "in_channels") if key in given]
    if not width and not _needs_no_width(conv, options):
        return conv(in_channels, out_channels, **options)
    if in_channels != out_channels:
        raise ValueError(f"{name} keeps its width, got in_channels={in_channels} and {out_channels=}")
    return conv(*[in_channels for _ in width], **options)


def networks_of(conv: Builder) -> Callable[..., dict[str, nn.Module]] | None:
    """What makes the networks that a layer is given; None for all other layers."""
    for base in getattr(conv, "__mro__", ()):
        if base in _NETWORKS and conv.__init__ is base.__init__:  # type: ignore[misc]  # built like its base
            return _NETWORKS[base]
    return None


def parameters_of(conv: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named parameters of a class or callable, or of the class's base if it only passes all on."""
    try:
        parameters = inspect.signature(conv).parameters
    except ValueError:  # some builtins have none
        return {}
    hidden = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    if isinstance(conv, type) and {p.kind for p in parameters.values()} == hidden:
        return parameters_of(conv.__mro__[1])
    return {name: p for name, p in parameters.items() if p.kind not in hidden}


def _value(conv: Builder, name: str, options: dict[str, Any]) -> Any:
    """An option as given, or its default, in a base class if need be; None where there is none."""
    if name in options:
        return options[name]
    source = getattr(conv, "func", conv)  # of a partial call
    named = [parameters_of(base).get(name) for base in (conv, *getattr(source, "__mro__", ()))]
    return next((p.default for p in named if p is not None and p.default is not p.empty), None)


def _needs_no_width(conv: Any, options: dict[str, Any]) -> bool:
    """Whether it is a PyG layer that the options alone complete."""
    if not (isinstance(conv, type) and issubclass(conv, pyg.MessagePassing)):
        return False
    return all(p.default is not p.empty or name in options for name, p in parameters_of(conv).items())


def _width_of_a_head(out_channels: int, heads: int) -> int:
    if out_channels % heads:
        raise ValueError(
            f"heads={heads} must divide the width of a group, {out_channels} channels here; "
            "choose fewer heads, larger groups, or concat=False"
        )
    return out_channels // heads
