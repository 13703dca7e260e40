"""Trained networks from files: ours, and torchvision's by way of a file of weights."""

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from mgic_geo.datasets import IMAGENET, Normalization
from mgic_geo.model_file import ImageCard, save_model
from mgic_geo.paper.backbones import saved_backbone, torchvision_backbone


def test_a_network_of_ours(tmp_path: Path) -> None:
    colours = Normalization((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    card = ImageCard("resnet56", {"depths": [1, 1, 1]}, ("a", "b"), colours.mean, colours.std, (16, 24))
    save_model(tmp_path / "model.safetensors", card.build(), card)
    backbone = saved_backbone(tmp_path)
    assert (backbone.normalization, backbone.size, backbone.name) == (colours, (16, 24), "resnet56")
    assert not backbone.model.training


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvisions_from_a_file(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    model = models.get_model("squeezenet1_1", weights=None)
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(model.state_dict(), file)
    else:
        save_file(model.state_dict(), file)
    backbone = torchvision_backbone("squeezenet1_1", file)
    assert (backbone.size, backbone.normalization) == ((224, 224), IMAGENET)
    assert torch.equal(next(backbone.model.parameters()), next(model.parameters()))


def test_the_best_known_weights_say_what_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    build = models.get_model

    def fetched(name: str, **kwargs: Any) -> torch.nn.Module:
        asked.update(kwargs)
        return build(name, weights=None)

    monkeypatch.setattr(models, "get_model", fetched)
    backbone = torchvision_backbone("resnet18")
    assert asked["weights"].name == "IMAGENET1K_V1"
    assert (backbone.size, backbone.normalization) == ((224, 224), IMAGENET)
    assert backbone.name == "resnet18 of torchvision, IMAGENET1K_V1"


def test_errors_name_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no classifier of that name; try resnet50"):
        torchvision_backbone("resnet55")
    with pytest.raises(ValueError, match="no classifier of that name"):
        torchvision_backbone("deeplabv3_resnet50")  # a segmenter
    with pytest.raises(ValueError, match="there is no file"):
        torchvision_backbone("resnet18", tmp_path / "gone.pth")
    for name, content in (("a.pth", b"no weights"), ("b.safetensors", b"nor these"), ("c.pth", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="does not hold the weights of this network"):
            torchvision_backbone("squeezenet1_1", tmp_path / name)
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "d.pth")
    with pytest.raises(ValueError, match="Missing key"):
        torchvision_backbone("squeezenet1_1", tmp_path / "d.pth")

    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(models, "get_model", offline)
    with pytest.raises(ValueError, match=r"downloaded from https://\S+resnet50.*no route.*--weights"):
        torchvision_backbone("resnet50")
