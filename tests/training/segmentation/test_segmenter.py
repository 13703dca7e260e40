import re
from functools import partial
from pathlib import Path

import pytest
import torch
from oracles import intersection_over_union, segmentation_loss
from torch import Tensor, nn

from mgic_geo.datasets import IGNORE, ImageLoader, Normalization, SegmentedImages
from mgic_geo.training.config import RunConfig
from mgic_geo.training.data import LoaderData
from mgic_geo.training.history import History
from mgic_geo.training.optimizers import ImageOptimizerConfig
from mgic_geo.training.plots import plot_curves
from mgic_geo.training.progress import Progress
from mgic_geo.training.segmentation.segmenter import MIOU, Segmenter
from mgic_geo.training.trainer import make_trainer

HALF = Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
CONFIG = ImageOptimizerConfig(label_smoothing=0.1, lr=0.5, warmup=0)


def split(size: int, seed: int = 0) -> SegmentedImages:
    """Images of noise whose class is the brighter one of two colours; a tenth of the pixels has no label."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (size, 3, 4, 4), generator=generator, dtype=torch.uint8)
    masks = (images[:, 1] > images[:, 0]).byte()
    masks[torch.rand(masks.shape, generator=generator) < 0.1] = IGNORE
    names = tuple(map(str, range(size)))
    return SegmentedImages(images, masks, names, ("red", "green"), ((255, 0, 0), (0, 255, 0)))


def fit(folder: Path) -> tuple[Segmenter, History]:
    torch.manual_seed(0)
    module = Segmenter(nn.Conv2d(3, 2, 1), 2, CONFIG, torch.tensor([1.0, 2.0]), hardest=0.5)
    loader = partial(ImageLoader, normalization=HALF)
    data = LoaderData(partial(loader, split(8), 2, train=True), partial(loader, split(3, seed=1), 2))
    history, config = History(folder), RunConfig(data="", output=folder, epochs=3, accelerator="cpu")
    trainer = make_trainer(config, folder / "last.ckpt", [history, Progress()], validate=True)
    trainer.fit(module, data)
    return module, history


def batch() -> tuple[Tensor, Tensor]:
    images = split(2)
    return HALF(images.images), images.masks.long()


def test_loss_and_score_are_those_of_the_slow_twins() -> None:
    module = Segmenter(nn.Identity(), 3, CONFIG, torch.tensor([1.0, 2.0, 3.0]), hardest=0.5)
    logits, masks = batch()
    slow = segmentation_loss(logits, masks, torch.tensor([1.0, 2.0, 3.0]), 0.5, 0.1)
    torch.testing.assert_close(module.loss(logits, masks), slow)
    ious = [iou for iou in intersection_over_union(logits.argmax(1), masks, 3) if iou is not None]
    assert float(module.score(module.count(logits, masks))) == pytest.approx(sum(ious) / len(ious))


def test_it_learns_and_logs_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module, history = fit(tmp_path)
    assert list(history.rows[0]) == [
        "epoch", "train_loss", "train_miou", "val_loss", "val_miou", "lr", "seconds",
    ]  # fmt: skip
    assert history.rows[-1]["train_loss"] < history.rows[0]["train_loss"]
    images = split(3, seed=1)  # validated in two batches, of two and of one
    answers = module.model(HALF(images.images)).argmax(1)
    ious = [iou for iou in intersection_over_union(answers, images.masks, 2) if iou is not None]
    assert history.rows[-1]["val_miou"] == pytest.approx(sum(ious) / len(ious))
    assert history.rows[-1]["val_miou"] > 0.7
    pattern = r"epoch 3/3  loss \d\.\d{3}  mIoU \d+\.\d%  validation \d+\.\d%  00:00 left"
    assert re.fullmatch(pattern, capsys.readouterr().err.splitlines()[2])


def test_weights_move_with_the_module_but_not_into_checkpoints() -> None:
    module = Segmenter(nn.Identity(), 2, CONFIG, torch.ones(2))
    assert module.to(torch.float64).criterion.weight.dtype == torch.float64  # type: ignore[union-attr]
    assert not module.state_dict()


def test_a_batch_without_labels_changes_nothing() -> None:
    module = Segmenter(nn.Conv2d(3, 2, 1), 2, CONFIG)
    images, masks = batch()
    outputs = module.training_step((images, torch.full_like(masks, IGNORE)), 0)
    outputs["loss"].backward()
    assert outputs["loss"] == 0
    assert all(p.grad is not None and not p.grad.any() for p in module.parameters())


def test_an_epoch_without_a_label_leaves_its_measure_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unlabelled = split(4)
    unlabelled.masks.fill_(IGNORE)
    loader = partial(ImageLoader, unlabelled, 2, normalization=HALF)
    history, run = History(tmp_path), RunConfig(data="", output=tmp_path, epochs=1, accelerator="cpu")
    trainer = make_trainer(run, tmp_path / "last.ckpt", [history, Progress()], validate=True)
    module = Segmenter(nn.Conv2d(3, 2, 1), 2, CONFIG)
    trainer.fit(module, LoaderData(partial(loader, train=True), loader))
    assert "mIoU –  validation –  00:00 left" in capsys.readouterr().err
    assert (tmp_path / "metrics.csv").read_text().count("nan") == 2
    plot_curves(tmp_path / "curves.png", history.rows, 0.5, MIOU, "val")
