"""A trained model as one safetensors file that holds all that is needed to use it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model as load_weights
from safetensors.torch import save_file
from torch import nn

from mgic_geo.models import create_model
from mgic_geo.training.files import replacing

KEY = "mgic_geo"  # one only: safetensors orders several at random, and equal models must give equal files


@dataclass(frozen=True)
class ModelCard:
    """
    What the weights alone do not say.

    Args:
        model: name for :func:`mgic_geo.models.create_model`.
        kwargs: its further arguments.
        classes: class names, in the order of the logits.
        points: points per cloud the model was trained with.
    """

    model: str
    kwargs: dict[str, Any]
    classes: tuple[str, ...]
    points: int

    def build(self) -> nn.Module:
        """Return the model, freshly initialised."""
        return create_model(self.model, num_classes=len(self.classes), **self.kwargs)


def save_model(path: Path, model: nn.Module, card: ModelCard) -> None:
    """Write the weights of ``model`` and ``card`` to ``path``."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(weights, temporary, metadata={KEY: json.dumps(asdict(card))})


def load_model(path: Path) -> tuple[nn.Module, ModelCard]:
    """
    Rebuild a saved model.

    Args:
        path: the file, or a folder with ``model.safetensors`` in it.

    Returns:
        The model, on the CPU and in evaluation mode, and its card.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no safetensors file, not one that :func:`save_model` wrote, or its weights and
            its card do not fit this version's models.
    """
    path = Path(path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"there is no model at {file}; train one with experiments/modelnet10.py")
    try:
        with safe_open(file, framework="pt") as weights:
            metadata = weights.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{file} is no safetensors file ({error}); give a run's model.safetensors"
        ) from error
    if KEY not in metadata:
        raise ValueError(f"{file} does not say which model it holds; give the model.safetensors of a run")
    try:
        fields = json.loads(metadata[KEY])
        card = ModelCard(**{**fields, "classes": tuple(fields["classes"])})
        model = card.build()
        load_weights(model, file)
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"{file} was made by another version of this package ({error}); train anew"
        ) from error
    return model.eval(), card
