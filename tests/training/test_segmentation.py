from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mgic_geo.datasets import IMAGENET, SegmentationAugment, SegmentedImages
from mgic_geo.training import (
    Fitted,
    ImageCard,
    SegmentationConfig,
    UsageError,
    image_training,
    judge_segmenter,
    train_segmenter,
    training_batches,
)

CLASSES, PALETTE = ("sky", "road"), ((0, 0, 255), (90, 90, 90))
CARD = ImageCard("lraspp_mobilenetv3_small", {}, CLASSES, IMAGENET.mean, IMAGENET.std, (32, 32))


def split(size: int = 2) -> SegmentedImages:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)
    masks = torch.randint(2, (size, 32, 32), generator=generator, dtype=torch.uint8)
    return SegmentedImages(images, masks, tuple(map(str, range(size))), CLASSES, PALETTE)


def config(output: Path, **flags: Any) -> SegmentationConfig:
    fixed = {"data": "", "model": CARD.model, "epochs": 1, "batch_size": 2, "accelerator": "cpu"}
    return SegmentationConfig(output=output, **fixed | flags)


@pytest.mark.parametrize(("flag", "momentum"), [(0.3, {0.3}), (None, {0.01, 0.1})])
def test_normalisations_get_the_momentum_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: float | None, momentum: set[float]
) -> None:
    seen: list[nn.Module] = []
    monkeypatch.setattr(image_training, "fit", lambda _, module, *args, **kwargs: seen.append(module.model))
    run = config(tmp_path, norm_momentum=flag, channels_last=True)
    assert train_segmenter(run, CARD, 2, lambda: None, None) is None  # type: ignore[arg-type, return-value]
    norms = [module for module in seen[0].modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == momentum  # its own differ between trunk and head
    kernels = [p for p in seen[0].parameters() if p.ndim == 4]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_what_was_trained_is_saved_and_judged(tmp_path: Path) -> None:
    run = config(tmp_path)
    batches = training_batches(split(), 2, IMAGENET, SegmentationAugment())
    fitted = train_segmenter(run, CARD, 2, batches, None)
    assert isinstance(fitted, Fitted)
    judgement = judge_segmenter(run, tmp_path / "model.safetensors", split(3), fitted)
    assert judgement.summary.miou == judgement.result.miou
    assert judgement.summary.images == 3
    assert not list(tmp_path.glob("*.png"))  # figures come first, since a picture may fail
    judgement.draw()
    for name in ("iou.md", "iou.png", "gallery.png"):
        assert (tmp_path / name).stat().st_size > 100
    others = SegmentedImages(split().images, split().masks, ("0", "1"), ("sky", "sea"), PALETTE)
    with pytest.raises(UsageError, match="the model knows the classes road, sky"):
        judge_segmenter(run, tmp_path, others, fitted)
