"""A trained model as one safetensors file that holds all that is needed to use it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model as load_weights
from safetensors.torch import save
from torch import nn

from mgic_geo.datasets import Normalization
from mgic_geo.models import create_model
from mgic_geo.training.files import replacing

KEY = "mgic_geo"  # one only: safetensors orders several at random, and equal models must give equal files


@dataclass(frozen=True)
class Card:
    """
    What the weights alone do not say.

    Args:
        model: name for :func:`mgic_geo.models.create_model`.
        kwargs: its further arguments.
        classes: class names, in the order of the logits.
    """

    model: str
    kwargs: dict[str, Any]
    classes: tuple[str, ...]

    def build(self) -> nn.Module:
        """Return the model, freshly initialised."""
        return create_model(self.model, num_classes=len(self.classes), **self.kwargs)


@dataclass(frozen=True)
class ModelCard(Card):
    """
    The card of a model of point clouds.

    Args:
        points: points per cloud the model was trained with.
    """

    points: int


@dataclass(frozen=True)
class ImageCard(Card):
    """
    The card of a model of images.

    Args:
        mean: of red, green and blue, on the scale 0 … 1: the model's input has it subtracted.
        std: likewise, the standard deviation, by which it is then divided.
        size: height and width of the images it is evaluated on.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: tuple[int, int]

    @property
    def normalization(self) -> Normalization:
        """What an input is brought to."""
        return Normalization(self.mean, self.std)


CardT = TypeVar("CardT", bound=Card)


def save_model(path: Path, model: nn.Module, card: Card) -> None:
    """Write the weights of ``model`` and ``card`` to ``path``."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        # safetensors' own writing makes files that nobody but their owner may read.
        temporary.write_bytes(save(weights, metadata={KEY: json.dumps(asdict(card))}))


@overload
def load_model(path: Path) -> tuple[nn.Module, ModelCard]: ...
@overload
def load_model(path: Path, kind: type[CardT]) -> tuple[nn.Module, CardT]: ...
def load_model(path: Path, kind: type[Card] = ModelCard) -> tuple[nn.Module, Card]:
    """
    Rebuild a saved model.

    Args:
        path: the file, or a folder with ``model.safetensors`` in it.
        kind: the card the file must have: :class:`ModelCard` or :class:`ImageCard`.

    Returns:
        The model, on the CPU and in evaluation mode, and its card.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no safetensors file, not one that :func:`save_model` wrote, has another kind
            of card, or its weights and card do not fit this version's models.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"there is no model at {file}; train one with the scripts in experiments/")
    try:
        with safe_open(file, framework="pt") as weights:
            metadata = weights.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{file} is no safetensors file ({error}); give a run's model.safetensors"
        ) from error
    if KEY not in metadata:
        raise ValueError(f"{file} does not say which model it holds; give the model.safetensors of a run")
    fields = json.loads(metadata[KEY])
    if fields.keys() != (expected := {field.name for field in dataclasses.fields(kind)}):
        other = ", ".join(sorted(fields.keys() ^ expected))
        raise ValueError(
            f"{file} holds {fields.get('model')}, whose card is no {kind.__name__} (they differ in {other}); "
            "give a model of the script that trained it"
        )
    # JSON knows lists only.
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    try:
        card = kind(**values)
        model = card.build()
        load_weights(model, file)
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{file} was made by another version of this package ({error}); train anew"
        ) from error
    return model.eval(), card
