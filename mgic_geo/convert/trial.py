"""What is asked of a model before its conversion, and seen in its first run after it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mgic_geo.convert.forms import describe, leaving
from mgic_geo.convert.table import Conversion
from mgic_geo.convert.units import Unit

__all__ = ["check_model", "check_values", "named_failures"]

_REGISTERS = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}


def check_model(model: Any) -> None:
    """Refuse what cannot be converted as a whole.

    Raises:
        TypeError: If it is no module, or a part of it is TorchScript or keeps a register of its parameters.
        ValueError: If it has a ``conversion`` of its own.
    """
    if not isinstance(model, nn.Module):
        given = f"the class {model.__name__}" if isinstance(model, type) else f"one of {type(model).__name__}"
        raise TypeError(f"model must be an object of torch.nn.Module, got {given}")
    for part in model.modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise TypeError(
                "a TorchScript module's layers cannot be replaced: convert the model, then trace or export it"
            )
        kinds = [kind.__name__ for kind in type(part).__mro__ if kind.__module__.startswith("torch.")]
        if kind := next((kind for kind in kinds if kind in _REGISTERS), ""):
            raise TypeError(
                f"a {kind} keeps a register of its parameters, which would miss the new ones: convert the "
                "model that is in it (of a wrapper its .module), then wrap or shard that"
            )
    if hasattr(model, "conversion") and not isinstance(model.conversion, Conversion):
        raise ValueError(
            f"the {type(model).__name__} has a 'conversion' of its own, where the table would go: "
            "rename it, or convert nn.ModuleList([model]), whose item 0 is the converted model"
        )


def check_values(model: nn.Module, inputs: Any) -> None:
    """Refuse to fit to what has no values.

    Raises:
        RuntimeError: In inference mode.
        ValueError: If the model or an input is on the meta device.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "init='project' trains, which inference_mode forbids: call replace_convs outside it"
        )
    tensors = [*model.parameters(), *(leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor))]
    if any(tensor.is_meta for tensor in tensors):
        raise ValueError(
            "init='project' fits to values, which the meta device has not: load model and inputs first"
        )


@contextlib.contextmanager
def named_failures(new: Mapping[Unit, nn.Module]) -> Iterator[None]:
    """Name the layer where a run of the converted model fails in its MGIC form, or runs it as it was.

    Raises:
        ValueError: So.
    """
    running: list[Unit] = []
    stale: list[Unit] = []

    def into(units: list[Unit], unit: Unit) -> Any:
        return lambda *_: units.append(unit)

    def leave(*_: Any) -> None:
        running.pop()

    handles = []
    for unit, made in new.items():
        handles.append(unit.module.register_forward_pre_hook(into(stale, unit)))
        handles.append(made.register_forward_pre_hook(into(running, unit)))
        handles.append(made.register_forward_hook(leave))
    try:
        yield
    except Exception as error:
        if not running:
            raise
        name = running[-1].names[0]
        raise ValueError(
            f"{name!r} ran on these inputs as {describe(running[-1].module)}, but fails as "
            f"{describe(new[running[-1]])}: {error!r}; {leaving(name)}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    if stale:
        name = stale[0].names[0]
        raise ValueError(
            f"{name!r} runs as {describe(stale[0].module)} even after its replacement: something holds it "
            f"outside the module tree; {leaving(name)}"
        )
