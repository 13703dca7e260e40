from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from mgic_geo.datasets import ImageLoader, Images, Normalization
from mgic_geo.training import Classifier, ImageCard, ImageConfig, load_model
from mgic_geo.training.image_training import train_images
from mgic_geo.training.run import Fitted

CARD = ImageCard("resnet56", {"depths": [1, 1, 1]}, ("cat", "dog"), (0.5,) * 3, (0.2,) * 3, (8, 8))


@pytest.fixture
def config(tmp_path: Path) -> ImageConfig:
    return ImageConfig(
        data="pets", output=tmp_path, model="resnet56", epochs=2, batch_size=2, accelerator="cpu", lr=0.01
    )


def train(config: ImageConfig, validate: bool = False) -> tuple[Fitted | None, nn.Module]:
    """Train on eight random images; give the outcome, and the model that was trained."""
    pixels = torch.randint(256, (8, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    images = Images(pixels, torch.arange(8) % 2, tuple("abcdefgh"), CARD.classes)
    made: list[nn.Module] = []

    def learner(model: nn.Module) -> Classifier:
        made.append(model)
        return Classifier(model, config)

    loader = partial(ImageLoader, images, 2, normalization=Normalization(CARD.mean, CARD.std))
    val = partial(loader, train=False) if validate else None
    fitted = train_images(config, CARD, len(images), learner, partial(loader, train=True), val)
    return fitted, made[0]


def test_what_was_trained_is_saved(config: ImageConfig, capsys: pytest.CaptureFixture[str]) -> None:
    fitted, model = train(replace(config, channels_last=True), validate=True)
    assert "resnet56 on pets, 8 training images" in capsys.readouterr().out
    assert fitted is not None
    assert [row.keys() >= {"train_loss", "val_accuracy"} for row in fitted.rows] == [True, True]
    kernels = [p for p in model.parameters() if p.dim() == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    saved, card = load_model(config.output, ImageCard)
    assert card == CARD
    values = model.state_dict()
    assert all(torch.equal(value, values[name]) for name, value in saved.state_dict().items())
    fresh = CARD.build().state_dict()
    assert not torch.equal(values["conv1.weight"], fresh["conv1.weight"])


def test_options_of_the_run_reach_the_training(config: ImageConfig) -> None:
    _, model = train(replace(config, accumulate=2, ema=0.5))
    last = torch.load(config.output / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4  # 2 epochs of 4 batches, 2 of which make a step
    weights = last["state_dict"]["model.conv1.weight"]
    assert not torch.equal(model.state_dict()["conv1.weight"], weights)  # the average is kept, and saved
