import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn

from mgic_geo.datasets import CloudLoader
from mgic_geo.model_file import ImageCard, save_model
from mgic_geo.training.classification.classifier import Classifier
from mgic_geo.training.config import RunConfig
from mgic_geo.training.data import LoaderData
from mgic_geo.training.errors import UsageError
from mgic_geo.training.optimizers import OptimizerConfig
from mgic_geo.training.run import fit, load_for

NAMES = tuple(f"class {i}" for i in range(12))


def saved(path: Path, classes: tuple[str, ...]) -> Path:
    card = ImageCard("resnet56", {"depths": [1, 1, 1]}, classes, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), (8, 8))
    save_model(path / "model.safetensors", card.build(), card)
    return path


def test_a_saved_model_is_rebuilt_for_its_own_classes_only(tmp_path: Path) -> None:
    path = saved(tmp_path, NAMES)
    model, card = load_for(path, ImageCard, list(NAMES), "pets")
    assert not model.training
    assert card.classes == NAMES
    with pytest.raises(UsageError, match=r"classes class 0, class 1, .* has class 1, class 0"):
        load_for(path, ImageCard, ["class 1", "class 0", *NAMES[2:]], "pets")
    with pytest.raises(UsageError, match=r"model .*: there is no model at"):
        load_for(path / "gone", ImageCard, NAMES, "pets")


def test_of_many_classes_the_message_names_those_that_differ(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_for(saved(tmp_path, NAMES), ImageCard, (*NAMES[:-1], "cat"), "pets")
    message = str(caught.value)
    assert "the model knows the classes class 11, class 0, " in message
    assert "but --data pets has cat, class 0, class 1, " in message
    assert message.count("… (12 in all)") == 2
    assert "class 10" not in message


class ToldToStop(nn.Sequential):
    """Has its process told to stop, as a cluster's scheduler does, in the first step."""

    def forward(self, points: Tensor) -> Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(points)


def test_sigterm_ends_with_its_status_and_says_how_to_go_on(
    make_clouds: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RunConfig(data="", output=tmp_path, epochs=4, batch_size=8, accelerator="cpu")
    model = ToldToStop(nn.Flatten(), nn.Linear(48, 3))
    with pytest.raises(SystemExit) as caught:
        fit(
            config,
            Classifier(model, OptimizerConfig()),
            LoaderData(partial(CloudLoader, make_clouds(24), 8, points=16, train=True)),
            validate=False,
        )
    assert caught.value.code == 128 + signal.SIGTERM
    assert "stopped in epoch 1; add --resume" in capsys.readouterr().err
