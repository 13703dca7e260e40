"""Weights of any module as a safetensors file, and back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mgic_geo.files import replacing

__all__ = ["load_weights", "read_metadata", "save_weights"]

_COMPILED = "_orig_mod."


def save_weights(
    model: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write the ``state_dict`` of ``model`` to a safetensors file, complete or not at all.

    The file reads as plain ``load_file(path)`` anywhere: names are without torch.compile's ``_orig_mod.``,
    tensors are dense and in rows whatever their memory format, and a weight that several names share is
    written under each.

    Args:
        model: The module.
        path: The file.
        metadata: Texts to keep in the file.

    Returns:
        The path.

    Raises:
        ValueError: If a layer has not seen its first input yet, by which its width is settled, or the state
            holds something that is no tensor.
    """
    weights = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} is {type(value).__name__}; safetensors files hold tensors only")
        if is_lazy(value):
            raise ValueError(f"the width of {name} is not settled; call the model on an input, then save it")
        # A copy, since safetensors refuses tensors that share memory.
        copied = torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
        weights[name.replace(_COMPILED, "")] = copied
    with replacing(Path(path)) as temporary:
        # safetensors' own writing makes files that nobody but their owner may read.
        temporary.write_bytes(save(weights, metadata=dict(metadata) if metadata else None))
    return Path(path)


def load_weights(model: nn.Module, path: str | os.PathLike[str], strict: bool = True) -> nn.Module:
    """Load a safetensors file of a ``state_dict`` into ``model``, in place.

    Either may be compiled, and layers of unsettled width take theirs from the file.

    Args:
        model: The module; it keeps its device, number type and memory format.
        path: The file.
        strict: Whether names must be the same on both sides. If not, a warning says which were not.

    Returns:
        The model.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no safetensors file, or none of its names is the model's.
        RuntimeError: From torch, naming what is missing, not expected or of another shape.
    """
    read_metadata(path)  # says what is wrong with the file, if something is
    names = {name.replace(_COMPILED, ""): name for name in model.state_dict()}
    state = {name.replace(_COMPILED, ""): value for name, value in load_file(path).items()}
    if state and not strict and not state.keys() & names.keys():
        raise ValueError(
            f"no name in {path} is one of the model's: there {next(iter(state))!r}, for example, here "
            f"{next(iter(names), None)!r}; load into the part of the model that the file is of"
        )
    state = {names.get(name, name): value for name, value in state.items()}
    missing, unexpected = model.load_state_dict(state, strict=strict)
    if missing or unexpected:
        kept = f"not in the file, so left as they were: {_some(missing)}" if missing else ""
        left = f"not in the model, so left out: {_some(unexpected)}" if unexpected else ""
        warnings.warn(f"{path}: {'; '.join(filter(None, (kept, left)))}", stacklevel=2)
    return model


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts kept in a safetensors file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no safetensors file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as weights:
            return weights.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file ({error})") from error
