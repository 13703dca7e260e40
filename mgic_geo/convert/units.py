"""The blocks and layers of a model that have, or might have, an MGIC form, in the model's order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import nn
from torch_geometric.nn import MLP, MessagePassing

from mgic_geo.convert.blocks import block_form
from mgic_geo.convert.calls import Call
from mgic_geo.convert.forms import Build
from mgic_geo.convert.layers import is_layer, layer_form
from mgic_geo.convert.lost import Losses
from mgic_geo.convert.messages import message_form
from mgic_geo.convert.weights_read import paths_read
from mgic_geo.core import GroupedLinear, MGICBlock
from mgic_geo.graph.edge_conv import EdgeConv
from mgic_geo.graph.edge_conv_folded import FoldedEdgeConv
from mgic_geo.graph.grouped.conv import GroupedConv
from mgic_geo.graph.grouped.fast import WideConv

__all__ = ["Unit", "find_units"]

_MADE_OF_LAYERS = (FoldedEdgeConv, WideConv, GroupedConv)
_READ_WEIGHTS = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.RNNBase)


@dataclass(eq=False)
class Unit:
    """A block or a layer.

    Args:
        names: Its paths: several where a model uses one module twice.
        module: The module.
        form: How to build its MGIC form, or why there is none.
        is_block: Whether it is a residual block.
        inside: What to look at if it is not replaced as a whole.
    """

    names: list[str]
    module: nn.Module
    form: Build | str
    is_block: bool = False
    inside: list[Unit] = field(default_factory=list)


def find_units(
    model: nn.Module,
    blocks: bool = True,
    read: Collection[str] = (),
    calls: Mapping[str, Collection[Call]] = MappingProxyType({}),
    original: nn.Module | None = None,
) -> list[Unit]:
    """All units of a model.

    Args:
        model: Any module.
        blocks: Take residual blocks as wholes.
        read: Names of layers whose weights are known to be read by others.
        calls: What message-passing layers, by name, are called with, where it is known.
        original: What the model is a copy of, if it is one.
    """
    lost = Losses(model, original)
    known: dict[nn.Module, list[Unit]] = {}

    def walk(name: str, module: nn.Module) -> list[Unit]:
        if module in known:
            for unit in known[module]:
                unit.names.append(name)
            return []
        found = list(look(name, module))
        if len(found) == 1 and found[0].module is module:
            known[module] = found
        return found

    def look(name: str, module: nn.Module) -> Iterator[Unit]:
        # Not named_children(), which tells of a module that stands in two places only once.
        parts = [(child, part) for child, part in module._modules.items() if part is not None]
        inner = [(f"{name}.{child}" if name else child, part) for child, part in parts]
        if isinstance(module, MGICBlock | GroupedLinear) or any(isinstance(p, MGICBlock) for _, p in inner):
            yield Unit([name], module, "MGIC already")
        elif isinstance(module, EdgeConv):
            yield Unit([name], module, "its MGIC form is MGICGraphConv(conv='edge')")
        elif isinstance(module, _READ_WEIGHTS):
            yield Unit([name], module, f"{type(module).__name__} reads the weights of its layers itself")
        elif isinstance(module, MessagePassing) and not isinstance(module, _MADE_OF_LAYERS):
            if next(module.parameters(), None) is not None:
                # Its own maps may be read by its propagation; a network that it was given is only called.
                given = [(n, part) for n, part in inner if isinstance(part, nn.Sequential | MLP)]
                inside = [unit for n, part in given for unit in walk(n, part)]
                form = lost(module) or message_form(module, calls.get(name, ()))
                yield Unit([name], module, form, False, inside)
        elif is_layer(module):
            yield Unit([name], module, lost(module) or layer_form(module))
        else:
            inside = [unit for n, part in inner for unit in walk(n, part)]
            paths = [f"{name}.{path}".strip(".") for path in paths_read(type(module))]
            _keep(inside, paths, f"{type(module).__name__} reads its weight itself")
            whole = blocks and len(inside) > 1 and not lost(module)
            form = block_form(module) if whole else None
            if form is not None:
                yield Unit([name], module, form, True, inside)
            else:
                yield from inside

    units = walk("", model)
    _keep(units, read, "another module reads its weight")
    return units


def _keep(units: Iterable[Unit], paths: Collection[str], reason: str) -> bool:
    """Leave alone what lies at or under the paths, and the blocks around it; whether there was something."""
    found = False
    for unit in units if paths else ():
        below = any(not path or f"{name}.".startswith(f"{path}.") for name in unit.names for path in paths)
        if _keep(unit.inside, paths, reason) or below:
            found = True
            unit.form = unit.form if isinstance(unit.form, str) else reason
    return found
