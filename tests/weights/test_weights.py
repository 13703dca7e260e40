"""What comes with the package: the file, its card, and what the two say of one another."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

import mgic_geo
from mgic_geo import from_pretrained, list_pretrained
from mgic_geo.weights import find_model

FOLDER = Path(mgic_geo.__file__).parent / "weights"
ROOT = Path(__file__).parents[2]


def test_names():
    assert list_pretrained() == ["mgic_dgcnn_modelnet10"]


@pytest.mark.parametrize("name", list_pretrained())
def test_small_and_described(name):
    file, card = FOLDER / f"{name}.safetensors", (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert find_model(name) == file
    assert file.stat().st_size < 1_000_000
    assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    model = from_pretrained(name)
    assert f"{sum(p.numel() for p in model.parameters()):,}" in card
    for class_ in model.card.classes:
        assert class_ in card
    for part in ("Data", "Recipe", "Accuracy", "Limits", "License and citation"):
        assert re.search(rf"^## {part}$", card, re.M), part


def test_they_are_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert "mgic_geo.weights" in settings["packages"]
    assert settings["package-data"]["mgic_geo.weights"] == ["*.safetensors", "*.md"]
    assert not {path.suffix for path in FOLDER.iterdir() if path.is_file()} - {
        ".py",
        ".safetensors",
        ".md",
    }


def test_a_path_is_found_and_a_mistake_told(tmp_path):
    (tmp_path / "model.safetensors").touch()
    assert (
        find_model(tmp_path) == find_model(tmp_path / "model.safetensors") == tmp_path / "model.safetensors"
    )
    with pytest.raises(FileNotFoundError, match=r"no model at mgic_dgcn;.* mgic_dgcnn_modelnet10"):
        find_model("mgic_dgcn")
