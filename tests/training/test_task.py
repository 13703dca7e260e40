from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mgic_geo.datasets import ImageLoader, Images, Normalization, split_validation
from mgic_geo.model_file import ImageCard, load_model
from mgic_geo.training.classification.classifier import Classifier
from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.classification.task import ClassificationTask
from mgic_geo.training.errors import UsageError
from mgic_geo.training.image_config import ImageConfig
from mgic_geo.training.task import run_task


class Record(ClassificationTask[ImageConfig, Images, ImageCard]):
    """A task on 8 × 8 images of two classes, which notes what it is asked for."""

    kind, samples = ImageCard, "images"

    def __init__(self, classes: tuple[str, ...] = ("cat", "dog"), contrast: int = 100):
        self.classes, self.contrast = classes, contrast
        self.calls, self.trained = list[Any](), list[nn.Module]()

    def images(self, size: int) -> Images:
        labels = torch.arange(size) % len(self.classes)
        pixels = torch.randint(156, (size, 3, 8, 8), generator=torch.Generator().manual_seed(size))
        pixels = (pixels + 100 * labels[:, None, None, None]) * self.contrast // 100
        return Images(pixels.byte(), labels, tuple("abcdefgh"[:size]), self.classes)

    def load(self, config: ImageConfig, saved: ImageCard | None) -> tuple[Images, ...]:
        self.calls.append(("load", saved and saved.model))
        return (self.images(3),) if saved else (self.images(8), self.images(3))

    def card(self, config: ImageConfig, samples: Images) -> ImageCard:
        self.calls.append(("card", samples.names))
        colours = Normalization.of(samples.images)
        return ImageCard(
            "resnet56", {"depths": [1, 1, 1]}, samples.classes, colours.mean, colours.std, (8, 8)
        )

    def loader(
        self, config: ImageConfig, samples: Images, card: ImageCard, train: bool
    ) -> partial[ImageLoader]:
        self.calls.append((train, len(samples)))
        return partial(ImageLoader, samples, config.batch_size, normalization=card.normalization, train=train)

    def learner(
        self, config: ImageConfig, card: ImageCard, samples: Images
    ) -> Callable[[nn.Module], Classifier]:
        make = super().learner(config, card, samples)

        def noted(model: nn.Module) -> Classifier:
            self.trained.append(model)
            return make(model)

        return noted

    def gallery(self, path: Path, samples: Images, card: ImageCard, result: Evaluation) -> None:
        self.calls.append(("gallery", path.name, len(samples)))


@pytest.fixture
def config(tmp_path: Path) -> ImageConfig:
    return ImageConfig(
        data="pets", output=tmp_path, model="resnet56", epochs=1, batch_size=2, accelerator="cpu"
    )


def test_a_run_asks_the_task_for_its_parts(config: ImageConfig, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record()
    kept, _ = split_validation(record.images(8), 0.25, seed=3)
    run_task(replace(config, val_fraction=0.25, seed=3), record)
    *first, last = record.calls
    assert first == [("load", None), ("card", kept.names), (False, 2), (True, 6), (False, 3)]
    assert last == ("gallery", "gallery.png", 3)
    out = capsys.readouterr().out
    assert "resnet56 on pets, 6 training images" in out
    assert load_model(config.output, ImageCard)[1].classes == ("cat", "dog")

    again = Record()
    run_task(replace(config, eval=config.output), again)
    assert again.calls == [("load", "resnet56"), (False, 3), last]
    table = capsys.readouterr().out.splitlines()
    assert next(line for line in table if line.startswith("test accuracy")) in out


def test_a_model_that_is_not_there_is_missed_before_images_are_read(config: ImageConfig) -> None:
    record = Record()
    with pytest.raises(UsageError, match="--eval: there is no model at"):
        run_task(replace(config, eval=config.output), record)
    assert record.calls == []


def test_images_that_cannot_be_told_apart_are_refused(config: ImageConfig) -> None:
    with pytest.raises(UsageError, match="--data pets: it has one class only"):
        run_task(config, Record(("cat",)))


def test_images_without_contrast_are_refused(config: ImageConfig) -> None:
    with pytest.raises(UsageError, match="--data pets: mean and std"):
        run_task(config, Record(contrast=0))


def test_what_was_trained_is_saved(config: ImageConfig) -> None:
    record = Record()
    run_task(replace(config, channels_last=True), record)
    (model,) = record.trained
    kernels = [p for p in model.parameters() if p.dim() == 4]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    saved, card = load_model(config.output, ImageCard)
    values = model.state_dict()
    assert all(torch.equal(value, values[name]) for name, value in saved.state_dict().items())
    fresh = card.build().state_dict()
    assert not torch.equal(values["conv1.weight"], fresh["conv1.weight"])


def test_options_of_the_run_reach_the_training(config: ImageConfig) -> None:
    record = Record()
    run_task(replace(config, epochs=2, accumulate=2, ema=0.5), record)
    last = torch.load(config.output / "last.ckpt", weights_only=True)
    assert last["global_step"] == 4  # 2 epochs of 4 batches, 2 of which make a step
    weights = last["state_dict"]["model.conv1.weight"]
    (model,) = record.trained
    assert not torch.equal(model.state_dict()["conv1.weight"], weights)  # the average is kept, and saved
