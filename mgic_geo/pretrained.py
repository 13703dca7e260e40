"""Trained models by name or path; small ones come with the package."""

from __future__ import annotations

import os

from torch import nn

from mgic_geo.model_file import kind_of, load_model

__all__ = ["from_pretrained"]


def from_pretrained(name_or_path: str | os.PathLike[str]) -> nn.Module:
    """A trained model in evaluation mode, on the CPU.

    Args:
        name_or_path: One of :func:`mgic_geo.list_pretrained`, a file that :func:`mgic_geo.save_model` wrote,
            or the folder of a run, which has it as ``model.safetensors``.

    Returns:
        The model. Its attribute ``card`` (:class:`mgic_geo.ModelCard` or :class:`mgic_geo.ImageCard`) has the
        class names in the order of the logits and what the input is like.

    Raises:
        FileNotFoundError: If there is neither such a name nor such a file; the names are listed.
        ValueError: If the file is no model of this package.

    Example:
        >>> model = from_pretrained("mgic_dgcnn_modelnet10")
        >>> model.card.classes[:3], model.card.points
        (('bathtub', 'bed', 'chair'), 1024)
    """
    model, card = load_model(name_or_path, kind_of(name_or_path))
    model.card = card  # type: ignore[assignment]
    return model
