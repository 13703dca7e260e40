from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mgic_geo.datasets import IMAGENET, SegmentationAugment, SegmentedImages
from mgic_geo.model_file import ImageCard
from mgic_geo.training.data import MakeLoader
from mgic_geo.training.errors import UsageError
from mgic_geo.training.segmentation.config import SegmentationConfig
from mgic_geo.training.segmentation.data import Split, training_batches, whole_batches
from mgic_geo.training.segmentation.task import SegmentationTask
from mgic_geo.training.task import run_task

CLASSES, PALETTE = ("sky", "road"), ((0, 0, 255), (90, 90, 90))
CARD = ImageCard("lraspp_mobilenetv3_small", {}, CLASSES, IMAGENET.mean, IMAGENET.std, (32, 32))


def split(size: int = 2) -> SegmentedImages:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)
    masks = torch.randint(2, (size, 32, 32), generator=generator, dtype=torch.uint8)
    return SegmentedImages(images, masks, tuple(map(str, range(size))), CLASSES, PALETTE)


@dataclass
class Scenes(SegmentationTask[SegmentationConfig]):
    """Two images to train on and three to judge by."""

    classes: tuple[str, ...] = CLASSES

    def load(self, config: SegmentationConfig, saved: ImageCard | None) -> tuple[SegmentedImages, ...]:
        test = split(3)
        test = SegmentedImages(test.images, test.masks, test.names, self.classes, PALETTE)
        return (test,) if saved else (split(), test)

    def card(self, config: SegmentationConfig, samples: Split) -> ImageCard:
        return CARD

    def loader(self, config: SegmentationConfig, samples: Split, card: ImageCard, train: bool) -> MakeLoader:
        if train:
            return training_batches(samples, config.batch_size, IMAGENET, SegmentationAugment())
        return whole_batches(samples, IMAGENET)


def config(output: Path, **flags: Any) -> SegmentationConfig:
    fixed = {"data": "", "model": CARD.model, "epochs": 1, "batch_size": 2, "accelerator": "cpu"}
    return SegmentationConfig(output=output, **fixed | flags)


@pytest.mark.parametrize(("flag", "momentum"), [(0.3, {0.3}), (None, {0.01, 0.1})])
def test_normalisations_get_the_momentum_that_was_asked_for(
    tmp_path: Path, flag: float | None, momentum: set[float]
) -> None:
    learner = Scenes().learner(config(tmp_path, norm_momentum=flag), CARD, split())(CARD.build())
    norms = [module for module in learner.model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == momentum  # its own differ between trunk and head


def test_classes_get_their_weights(tmp_path: Path) -> None:
    scenes = split()
    scenes.masks[0, :16] = 0
    learner = Scenes().learner(config(tmp_path, class_weights="median"), CARD, scenes)(CARD.build())
    sky, road = (int((scenes.masks == label).sum()) for label in (0, 1))
    assert sky > road
    weight = learner.criterion.weight
    assert weight is not None
    assert float(weight[1] / weight[0]) == pytest.approx(sky / road)


def test_what_was_trained_is_saved_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_task(config(tmp_path), Scenes())
    out = capsys.readouterr().out
    assert "mIoU" in out
    table = (tmp_path / "iou.md").read_text()
    assert table in out
    for name in ("iou.md", "iou.png", "gallery.png", "curves.png", "summary.json", "model.safetensors"):
        assert (tmp_path / name).stat().st_size > 100
    (tmp_path / "gallery.png").unlink()
    run_task(config(tmp_path, eval=tmp_path / "model.safetensors"), Scenes())
    assert table in capsys.readouterr().out
    assert (tmp_path / "gallery.png").exists()
    with pytest.raises(UsageError, match="the model knows the classes road, sky"):
        run_task(config(tmp_path, eval=tmp_path), Scenes(("sky", "sea")))
