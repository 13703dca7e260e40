"""The trained models that come with the package: one safetensors file each, and its card as Markdown."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["find_model", "list_pretrained"]

_FOLDER = Path(__file__).parent


def list_pretrained() -> list[str]:
    """Names of the models that come with the package; the card of each lies beside its weights."""
    return sorted(path.stem for path in _FOLDER.glob("*.safetensors"))


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a model: of :func:`list_pretrained`, a file, or a folder with ``model.safetensors`` in it.

    Raises:
        FileNotFoundError: If there is no such file; the names are listed.
    """
    if str(name_or_path) in list_pretrained():
        return _FOLDER / f"{name_or_path}.safetensors"
    path = Path(name_or_path)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"there is no model at {file}; train one with the scripts in experiments/, or take one that "
            f"comes with the package: {', '.join(list_pretrained())}"
        )
    return file
