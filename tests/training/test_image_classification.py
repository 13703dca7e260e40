from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mgic_geo.datasets import ImageLoader, Images, Normalization
from mgic_geo.training import ImageCard, ImageConfig, ImageTask, UsageError, load_model, run_classification


class Record:
    """A task on 8 × 8 images of two classes, which notes what it is asked for."""

    def __init__(self, classes: tuple[str, ...] = ("cat", "dog")):
        self.classes, self.calls = classes, list[Any]()
        self.task = ImageTask(load=self.load, card=self.card, loader=self.loader, picture=self.picture)

    def images(self, size: int) -> Images:
        labels = torch.arange(size) % len(self.classes)
        pixels = torch.randint(156, (size, 3, 8, 8), generator=torch.Generator().manual_seed(size))
        pixels += 100 * labels[:, None, None, None]
        return Images(pixels.byte(), labels, tuple("abcdefgh"[:size]), self.classes)

    def load(self, config: ImageConfig) -> tuple[Images, ...]:
        self.calls.append("load")
        return (self.images(3),) if config.eval else (self.images(8), self.images(3))

    def card(self, config: ImageConfig, images: Images) -> ImageCard:
        self.calls.append(("card", len(images)))
        colours = Normalization.of(images.images)
        return ImageCard("resnet56", {"depths": [1, 1, 1]}, images.classes, colours.mean, colours.std, (8, 8))

    def loader(self, config: ImageConfig, images: Images, card: ImageCard, train: bool) -> Callable[..., Any]:
        self.calls.append((train, len(images)))
        return partial(ImageLoader, images, config.batch_size, normalization=card.normalization, train=train)

    def picture(self, images: Images, card: ImageCard, index: int) -> Tensor:
        self.calls.append(index)
        return images.images[index]


@pytest.fixture
def config(tmp_path: Path) -> ImageConfig:
    return ImageConfig(
        data="pets", output=tmp_path, model="resnet56", epochs=1, batch_size=2, accelerator="cpu"
    )


def test_a_run_asks_the_task_for_its_parts(config: ImageConfig, capsys: pytest.CaptureFixture[str]) -> None:
    record = Record()
    run_classification(replace(config, val_fraction=0.25), record.task)
    *first, a, b, c = record.calls
    assert first == ["load", ("card", 6), (True, 6), (False, 2), (False, 3)]
    assert {a, b, c} == {0, 1, 2}  # the pictures of the gallery
    out = capsys.readouterr().out
    assert "resnet56 on pets, 6 training images" in out
    assert load_model(config.output, ImageCard)[1].classes == ("cat", "dog")

    again = Record()
    run_classification(replace(config, eval=config.output), again.task)
    assert again.calls[:2] == ["load", (False, 3)]
    table = capsys.readouterr().out.splitlines()
    assert next(line for line in table if line.startswith("test accuracy")) in out


def test_a_model_that_is_not_there_is_missed_before_images_are_read(config: ImageConfig) -> None:
    record = Record()
    with pytest.raises(UsageError, match="--eval: there is no model at"):
        run_classification(replace(config, eval=config.output), record.task)
    assert record.calls == []


def test_images_that_cannot_be_told_apart_are_refused(config: ImageConfig) -> None:
    with pytest.raises(UsageError, match="--data pets: it has one class only"):
        run_classification(config, Record(("cat",)).task)


def test_images_without_contrast_are_refused(config: ImageConfig) -> None:
    def black(config: ImageConfig) -> tuple[Images, Images]:
        images = Images(torch.zeros(4, 3, 8, 8).byte(), torch.tensor([0, 1, 0, 1]), tuple("abcd"), ("a", "b"))
        return images, images

    with pytest.raises(UsageError, match="--data pets: mean and std"):
        run_classification(config, replace(Record().task, load=black))
