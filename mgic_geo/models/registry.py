"""Models by name."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Any

from torch import nn

from mgic_geo.models.dgcnn import DGCNN

__all__ = ["create_model", "list_models"]

_MODELS = {
    "dgcnn": partial(DGCNN, conv="edge"),
    "mgic_dgcnn": partial(DGCNN, conv="mgic"),
}


def create_model(name: str, **kwargs: Any) -> nn.Module:
    """Build a model by its name.

    Args:
        name: One of :func:`list_models`.
        **kwargs: Arguments of the model, for example ``num_classes``.

    Returns:
        The model, freshly initialised.

    Raises:
        ValueError: If the name is unknown; the nearest ones are suggested.

    Example:
        >>> model = create_model("mgic_dgcnn", num_classes=10, group_size=16, coarse_size=32)
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(list_models())}"
        raise ValueError(f"no model is called {name!r}; {hint}")
    return _MODELS[name](**kwargs)


def list_models() -> list[str]:
    """Names that :func:`create_model` knows, sorted."""
    return sorted(_MODELS)
