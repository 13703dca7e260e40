"""The feature maps of a layer of any image network, found and read by hooks."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FeatureLayer:
    """A place in a network to read features at.

    Args:
        name: Dotted name of the module whose output is read.
        module: That module.
        then: Modules that its output goes through before it is given: normalisation and activation.
        text: What was chosen, in words.
        shape: (C, H, W) of the features of one image.
    """

    name: str
    module: nn.Module
    then: tuple[nn.Module, ...]
    text: str
    shape: tuple[int, int, int]


class _Call(NamedTuple):
    """One call of a module that gave feature maps (B, C, H, W)."""

    name: str
    module: nn.Module
    taken: Any
    given: Tensor


class _Reached(Exception):
    """Ends a forward pass at the layer whose output was wanted."""


@torch.inference_mode()
def find_layer(
    model: nn.Module, image: Tensor, name: str | None = None, *, least: int = 64, activated: bool = True
) -> FeatureLayer:
    """Choose a layer of an image network.

    Args:
        model: The network, in evaluation mode.
        image: (1, 3, H, W) an input for it.
        name: Dotted name of a module that gives feature maps (B, C, H, W). By default the first convolution;
            where it has fewer than ``least`` channels, the first stage or block that has as many: a child of
            the network, or of its ``features``, as torchvision calls them.
        least: Channels that a layer chosen by default has at least.
        activated: A convolution counts with the normalisation and activation that follow it.

    Raises:
        ValueError: If no module is called ``name``, or it gives no feature maps; or none fits by default.
    """
    calls = _trace(model, image)
    names = list(dict.fromkeys(call.name for call in calls))
    if name is not None:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=5, cutoff=0.3) or names[:10]
            raise ValueError(f"no module {name!r} gives feature maps; try {', '.join(near)}")
        first = next(i for i, call in enumerate(calls) if call.name == name)
        return _layer(calls, first, activated, "as asked for")
    first = next((i for i, call in enumerate(calls) if isinstance(call.module, nn.Conv2d)), None)
    if first is None:
        raise ValueError("the network has no 2D convolution; name another layer")
    width = calls[first].given.size(1)
    if width >= least:
        return _layer(calls, first, activated, "the first convolution")
    for i, call in enumerate(calls):
        parent = call.name.rpartition(".")[0]
        if call.name and parent in ("", "features") and call.given.size(1) >= least:
            why = f"the first part with at least {least} channels; the first convolution has {width}"
            return _layer(calls, i, activated, why)
    raise ValueError(
        f"the first convolution, {calls[first].name}, has {width} channels, and no later part of the network "
        f"has {least} or more; name a layer, such as {calls[first].name}"
    )


@torch.inference_mode()
def read_features(model: nn.Module, layer: FeatureLayer, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Give the features (B, H, W, C), channels last, of each batch of inputs (B, 3, H', W')."""
    caught: list[Tensor] = []

    def catch(module: nn.Module, taken: Any, given: Tensor) -> None:
        caught.append(given.clone())  # a later activation may work in place
        raise _Reached

    handle = layer.module.register_forward_hook(catch)
    try:
        for images in batches:
            try:
                model(images)
            except _Reached:
                features = caught.pop()
            else:
                raise RuntimeError(f"{layer.name} was not called")
            for module in layer.then:
                features = module(features)
            yield features.movedim(1, -1)
    finally:
        handle.remove()


def _trace(model: nn.Module, image: Tensor) -> list[_Call]:
    """Run the network on an image and note each module that gives feature maps, as they end."""
    calls: list[_Call] = []
    handles = []
    for name, module in model.named_modules():

        def note(module: nn.Module, taken: Any, given: Any, name: str = name) -> None:
            if isinstance(given, Tensor) and given.dim() == 4:
                calls.append(_Call(name, module, taken[0] if taken else None, given))

        handles.append(module.register_forward_hook(note))
    try:
        model(image)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _layer(calls: list[_Call], index: int, activated: bool, why: str) -> FeatureLayer:
    call, then = calls[index], []
    names, last = [call.name], call
    if activated and isinstance(call.module, nn.Conv2d):
        # What takes the very tensor that the one before gave, and normalises or activates.
        for kind in (_normalizes, _activates):
            follower = next((c for c in calls if c.taken is last.given and c is not last), None)
            if follower is not None and kind(follower.module):
                names.append(follower.name)
                then.append(follower.module)
                last = follower
    channels, height, width = last.given.shape[1:]
    text = f"{', '.join(names)} ({why}): {channels} channels of {height} × {width}"
    return FeatureLayer(call.name, call.module, tuple(then), text, (channels, height, width))


def _normalizes(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


def _activates(module: nn.Module) -> bool:
    return type(module).__module__ == nn.ReLU.__module__
