"""A trained model as one safetensors file that holds all that is needed to use it."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from torch import nn

from mgic_geo.models import create_model
from mgic_geo.normalization import Normalization
from mgic_geo.weights import find_model
from mgic_geo.weights_file import load_weights, read_metadata, save_weights

__all__ = ["Card", "ImageCard", "ModelCard", "kind_of", "load_model", "save_model"]

KEY = "mgic_geo"  # one only: safetensors orders several at random, and equal models must give equal files


@dataclass(frozen=True)
class Card:
    """What the weights alone do not say.

    Args:
        model: Name for :func:`mgic_geo.create_model`.
        kwargs: Its further arguments.
        classes: Class names, in the order of the logits.
    """

    model: str
    kwargs: dict[str, Any]
    classes: tuple[str, ...]

    def build(self) -> nn.Module:
        """The model, freshly initialised."""
        return create_model(self.model, num_classes=len(self.classes), **self.kwargs)


@dataclass(frozen=True)
class ModelCard(Card):
    """The card of a model of point clouds.

    Args:
        points: Points per cloud the model was trained with.
    """

    points: int


@dataclass(frozen=True)
class ImageCard(Card):
    """The card of a model of images.

    Args:
        mean: Of red, green and blue, on the scale 0 … 1: the model's input has it subtracted.
        std: Likewise, the standard deviation, by which it is then divided.
        size: Height and width of the images it is evaluated on.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: tuple[int, int]

    @property
    def normalization(self) -> Normalization:
        """What an input is brought to."""
        return Normalization(self.mean, self.std)


CardT = TypeVar("CardT", bound=Card)


def save_model(path: str | os.PathLike[str], model: nn.Module, card: Card) -> None:
    """Write the weights of ``model`` and ``card`` to ``path``; :func:`mgic_geo.from_pretrained` reads it."""
    save_weights(model, path, {KEY: json.dumps(asdict(card))})


@overload
def load_model(path: str | os.PathLike[str]) -> tuple[nn.Module, ModelCard]: ...
@overload
def load_model(path: str | os.PathLike[str], kind: type[CardT]) -> tuple[nn.Module, CardT]: ...
def load_model(path: str | os.PathLike[str], kind: type[Card] = ModelCard) -> tuple[nn.Module, Card]:
    """Rebuild a saved model.

    Args:
        path: The file, a folder with ``model.safetensors`` in it, or a name of
            :func:`mgic_geo.list_pretrained`.
        kind: The card the file must have: :class:`ModelCard` or :class:`ImageCard`.

    Returns:
        The model, on the CPU and in evaluation mode, and its card.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no safetensors file, not one that :func:`save_model` wrote, has another
            kind of card, or its weights and card do not fit this version's models.
    """
    file = find_model(path)
    fields = _fields(file)
    if fields.keys() != (expected := _names(kind)):
        other = ", ".join(sorted(fields.keys() ^ expected))
        raise ValueError(
            f"{file} holds {fields.get('model')}, whose card is no {kind.__name__} (they differ in {other}); "
            "give a model of the script that trained it"
        )
    # JSON knows lists only.
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    try:
        card = kind(**values)
        model = load_weights(card.build(), file)
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{file} was made by another version of this package ({error}); train anew"
        ) from error
    return model.eval(), card


def kind_of(path: str | os.PathLike[str]) -> type[Card]:
    """The kind of card that a file written by :func:`save_model` has.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If :func:`save_model` did not write it.
    """
    fields = _fields(find_model(path))
    for kind in (ModelCard, ImageCard, Card):
        if fields.keys() == _names(kind):
            return kind
    raise ValueError(
        f"{path} was made by another version of this package, with a card of {', '.join(fields)}"
    )


def _fields(file: Path) -> dict[str, Any]:
    metadata = read_metadata(file)
    if KEY not in metadata:
        raise ValueError(f"{file} does not say which model it holds; give the model.safetensors of a run")
    return json.loads(metadata[KEY])


def _names(kind: type[Card]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}
