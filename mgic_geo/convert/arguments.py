"""Reading from a PyG layer with which arguments it was built, to build it again at other widths.

PyG's layers keep their arguments as attributes of the same names, with a few exceptions listed below. What
was read is trusted only if the layer, built again at its own widths, has the same parts, settings and shapes.
"""

from __future__ import annotations

import copy
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch_geometric.nn import MLP, GINConv, MessagePassing
from torch_geometric.nn.aggr import DegreeScalerAggregation, MultiAggregation
from torch_geometric.nn.dense.linear import Linear

from mgic_geo.graph.grouped import grouped

__all__ = ["Arguments", "built", "read_arguments"]


@dataclass(frozen=True)
class Arguments:
    """A layer's class, and its arguments but the two widths.

    Args:
        conv: The class.
        kwargs: The arguments.
        degrees: The aggregation that knows the degrees of the training graphs; None but for PNA.
    """

    conv: type[MessagePassing]
    kwargs: dict[str, Any]
    degrees: DegreeScalerAggregation | None = None


def built(arguments: Arguments, width_in: int, width_out: int, groups: int = 1) -> nn.Module:
    """The layer at other widths, in groups; heads and towers are shared out among the groups."""
    conv, kwargs = arguments.conv, dict(arguments.kwargs)
    splits = next((name for name in ("towers", "num_heads") if name in kwargs), None)
    splits = splits or ("heads" if kwargs.get("concat") else None)
    if splits:
        width = width_out // groups
        allowed = max(1, kwargs[splits] // groups)
        kwargs[splits] = max(n for n in range(1, min(allowed, width) + 1) if width % n == 0)
    layer = grouped(conv, groups)(width_in, width_out, **kwargs)
    for module in layer.modules():
        if isinstance(module, DegreeScalerAggregation) and arguments.degrees is not None:
            for name in ("lin", "log"):
                setattr(module, f"init_avg_deg_{name}", getattr(arguments.degrees, f"init_avg_deg_{name}"))
            module.reset_parameters()
    return layer


def read_arguments(conv: MessagePassing) -> tuple[int, int, Arguments] | str:
    """Widths and arguments of a layer, or why it cannot be built at other widths."""
    name = type(conv).__name__
    if isinstance(conv, GINConv):
        mlp = conv.nn
        if not (isinstance(mlp, MLP) and len(set(mlp.channel_list[1:])) == 1):
            return "its nn is no MLP of PyG that could be built at other widths"
        width_in: Any = mlp.channel_list[0]
        width_out: Any = mlp.channel_list[-1]
    else:
        width_in, width_out = getattr(conv, "in_channels", None), getattr(conv, "out_channels", None)
    if isinstance(width_in, tuple | list):
        return "it takes pairs of inputs"
    if width_in == -1:
        return "its width is not known yet: run the model once first"
    if not (isinstance(width_in, int) and isinstance(width_out, int)):
        return f"{name} is not built from two widths"
    try:
        arguments = Arguments(type(conv), _kwargs(conv), _degrees(conv))
        width_out *= arguments.kwargs.get("heads", 1) if arguments.kwargs.get("concat") else 1
        twin = built(arguments, width_in, width_out)
    except Exception as error:  # whatever a constructor raises, the layer can only be left alone
        return f"{name} could not be built again from its attributes: {error}"
    difference = _difference(twin, conv)
    return f"{name} built again differs in {difference}" if difference else (width_in, width_out, arguments)


def _kwargs(conv: MessagePassing) -> dict[str, Any]:
    """Arguments of the class by the attributes of a layer."""
    kwargs: dict[str, Any] = {}
    for name, parameter in inspect.signature(type(conv).__init__).parameters.items():
        if name in ("self", "in_channels", "out_channels", "nn"):
            continue
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            # Arguments that all layers hand to MessagePassing; given only where they depart from a default.
            if conv.flow != "source_to_target":
                kwargs["flow"] = conv.flow
            continue
        value = _READERS.get(name, lambda layer, name=name: getattr(layer, name, _MISSING))(conv)
        if isinstance(value, nn.Module) and any(True for _ in value.parameters()):
            value = _MISSING  # all levels would share its weights; a default is built at every width
        if value is not _MISSING:
            kwargs[name] = value
        elif parameter.default is parameter.empty:
            raise ValueError(f"nothing to build its {name} from")
    if "aggr" not in kwargs and isinstance(conv, GINConv):
        kwargs["aggr"] = conv.aggr
    return kwargs


_MISSING = object()


def _has_bias(conv: nn.Module) -> Any:
    if hasattr(conv, "bias"):
        return conv.bias if isinstance(conv.bias, bool) else conv.bias is not None
    maps = (part for part in conv.modules() if isinstance(part, nn.Linear | Linear))  # norms have their own
    return any(part.bias is not None for part in maps)


def _linears(conv: nn.Module, name: str) -> Any:
    """How many maps the first of PNA's networks ``name`` has."""
    networks: Any = getattr(conv, name, None)
    return sum(hasattr(m, "weight") for m in networks[0]) if networks is not None else _MISSING


def _between(conv: nn.Module) -> Any:
    """The activation; in PNA it stands between the maps of its networks, where there are several."""
    if hasattr(conv, "act"):
        return conv.act
    networks = [n for name in ("pre_nns", "post_nns") for n in getattr(conv, name, [])]
    return next((copy.deepcopy(m) for n in networks for m in n if not hasattr(m, "weight")), _MISSING)


def _aggregators(conv: nn.Module) -> Any:
    if hasattr(conv, "aggregators"):
        return conv.aggregators
    inner = conv.aggr_module.aggr  # type: ignore[union-attr]
    several = isinstance(inner, MultiAggregation)
    return [type(a).__name__ for a in (inner.aggrs if several else [inner])]  # type: ignore[union-attr]


def _or_missing(conv: nn.Module, name: str, other: str, value: Callable[[Any], Any]) -> Any:
    return value(getattr(conv, other)) if hasattr(conv, other) else getattr(conv, name, _MISSING)


_READERS: dict[str, Callable[[Any], Any]] = {
    "bias": _has_bias,
    "K": lambda conv: conv.K if hasattr(conv, "K") else _or_missing(conv, "K", "lins", len),
    "eps": lambda conv: _or_missing(conv, "eps", "initial_eps", float),
    "train_eps": lambda conv: isinstance(getattr(conv, "eps", None), nn.Parameter),
    "residual": lambda conv: _or_missing(conv, "residual", "res", lambda res: res is not None),
    "aggregators": _aggregators,
    "scalers": lambda conv: list(conv.aggr_module.scaler),
    "deg": lambda conv: torch.tensor([0, 1]),  # any: built() sets what was computed from it
    "train_norm": lambda conv: isinstance(conv.aggr_module.avg_deg_lin, nn.Parameter),
    "pre_layers": lambda conv: _linears(conv, "pre_nns"),
    "post_layers": lambda conv: _linears(conv, "post_nns"),
    "act": _between,
}
"""Arguments that a layer does not keep under their own names."""


def _degrees(conv: MessagePassing) -> DegreeScalerAggregation | None:
    return conv.aggr_module if isinstance(conv.aggr_module, DegreeScalerAggregation) else None


def _difference(twin: nn.Module, conv: nn.Module) -> str:
    """The first part, tensor or setting in which two layers differ; empty if there is none."""
    mine, theirs = (dict(layer.named_modules(remove_duplicate=False)) for layer in (twin, conv))
    if {n: type(m) for n, m in mine.items()} != {n: type(m) for n, m in theirs.items()}:
        return "its parts"
    shapes = [{n: t.shape for n, t in layer.state_dict().items()} for layer in (twin, conv)]
    if shapes[0] != shapes[1]:
        return "its tensors"
    for path in mine:
        prefix = f"{path}." if path else ""
        ours, others = _settings(mine[path]), _settings(theirs[path])
        for name in ours.keys() | others.keys():
            if ours.get(name, _MISSING) != others.get(name, _MISSING):
                return prefix + name
        if name := _other_buffer(mine[path], theirs[path]):
            return prefix + name
    return ""


def _other_buffer(twin: nn.Module, module: nn.Module) -> str:
    """The first buffer of a module's own that has other values; statistics of normalisations start anew."""
    ours, others = (dict(part.named_buffers(recurse=False)) for part in (twin, module))
    for name in () if isinstance(module, _NormBase) else sorted(ours.keys() | others.keys()):
        if name not in ours or name not in others:
            return name
        mine, value = ours[name], others[name]
        if not value.is_meta and not (mine.shape == value.shape and torch.equal(mine.to(value), value)):
            return name
    return ""


def _settings(module: nn.Module) -> dict[str, Any]:
    """Attributes that are plain values, or sequences of them, but for what a call may change."""
    plain = (bool, int, float, str, types.NoneType, types.FunctionType, types.BuiltinFunctionType)

    def is_plain(value: Any) -> bool:
        return isinstance(value, plain) or (isinstance(value, tuple | list) and all(map(is_plain, value)))

    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in ("training", "fuse") and is_plain(value)
    }
