"""Trained image networks to look into: those our scripts wrote, and torchvision's."""

from __future__ import annotations

import difflib
import pickle
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from mgic_geo.datasets import IMAGENET, Normalization
from mgic_geo.model_file import ImageCard, load_model


class Backbone(NamedTuple):
    """A trained image network, on the CPU and in evaluation mode.

    Args:
        model: The network.
        normalization: What its input is brought to.
        size: Height and width of the images it was trained for.
        name: What it is called in messages and tables.
    """

    model: nn.Module
    normalization: Normalization
    size: tuple[int, int]
    name: str


def saved_backbone(path: Path) -> Backbone:
    """Load a network that our scripts trained.

    Args:
        path: A run's folder, or its model.safetensors.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no network of images.
    """
    model, card = load_model(path, ImageCard)
    return Backbone(model, card.normalization, card.size, card.model)


def torchvision_backbone(name: str, weights: Path | None = None) -> Backbone:
    """Load a classifier of torchvision, trained on ImageNet.

    Args:
        name: For ``torchvision.models.get_model``.
        weights: A file of its weights, as torchvision distributes them (.pth) or as safetensors; None
            downloads the best that torchvision knows, once.

    Raises:
        ValueError: If the name is unknown, the download failed, or the file does not fit.
    """
    from torchvision import models  # slow to import, and only needed here

    names = models.list_models(module=models)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3) or names
        raise ValueError(f"torchvision has no classifier of that name; try {', '.join(near)}")
    if weights is not None:
        model = models.get_model(name, weights=None)
        _load(model, weights)
        return Backbone(model.eval(), IMAGENET, (224, 224), f"{name} of torchvision")
    best = models.get_model_weights(name)["DEFAULT"]
    try:
        model = models.get_model(name, weights=best, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # no connection; a file cut short
        raise ValueError(
            f"its weights could not be downloaded from {best.url} ({error}); try again, or fetch that file "
            "elsewhere and name it with --weights"
        ) from error
    preset = best.transforms()
    side = preset.crop_size[0]
    colours = Normalization(tuple(preset.mean), tuple(preset.std))
    return Backbone(model.eval(), colours, (side, side), f"{name} of torchvision, {best.name}")


def _load(model: nn.Module, file: Path) -> None:
    if not file.is_file():
        raise ValueError(f"there is no file {file}; give torchvision's .pth of the network")
    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, TypeError, EOFError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{file} does not hold the weights of this network ({reason})") from error
