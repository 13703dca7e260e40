import copy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from mgic_geo.datasets import IMAGENET, ImageLoader, Images, SegmentedImages
from mgic_geo.training.classification.classifier import ACCURACY, Classifier
from mgic_geo.training.config import RunConfig
from mgic_geo.training.data import LoaderData
from mgic_geo.training.errors import UsageError
from mgic_geo.training.learner import Learner, Measure, Score
from mgic_geo.training.optimizers import ImageOptimizerConfig
from mgic_geo.training.segmentation.segmenter import MIOU, Segmenter
from mgic_geo.training.trainer import make_trainer


def test_counts_add_up_over_batches() -> None:
    score = Score((2,), Classifier.score)
    score.update(torch.tensor([1, 4]))
    score.update(torch.tensor([5, 8]))
    assert float(score.compute()) == 0.5
    score.reset()
    score.update(torch.tensor([3, 3]))
    assert float(score.compute()) == 1.0


def test_a_step_gives_the_loss_and_what_the_measure_is_computed_from() -> None:
    module = Classifier(nn.Identity(), ImageOptimizerConfig(label_smoothing=0.0))
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1, 1])
    outputs = module.training_step((logits, labels), 0)
    assert float(outputs["loss"]) == pytest.approx(float(nn.functional.cross_entropy(logits, labels)))
    assert outputs["counts"].tolist() == [2, 3]
    assert float(module.score(outputs["counts"])) == pytest.approx(2 / 3)
    assert float(module.train_score.compute()) == pytest.approx(2 / 3)


@pytest.mark.parametrize("measure", [ACCURACY, MIOU, Measure("top5", "top-5", "Top-5", "share")])
def test_figures_are_logged_under_the_measures_key(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: dict[str, object] = {}
    module = Classifier(nn.Identity(), ImageOptimizerConfig())
    monkeypatch.setattr(Classifier, "measure", measure)
    monkeypatch.setattr(module, "log_dict", logged.update)
    trainer: Any = SimpleNamespace()
    module.trainer = trainer
    module.train_loss.update(torch.tensor(1.0))
    module.on_train_epoch_end()
    module.on_validation_epoch_end()
    assert list(logged) == ["train_loss", f"train_{measure.key}", "val_loss", f"val_{measure.key}"]


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_a_diverged_epoch_leaves_the_last_checkpoint(kind: str, tmp_path: Path) -> None:
    config = ImageOptimizerConfig(optimizer="sgd", lr=0.1)
    head = nn.Conv2d(3, 2, 1)
    module: Learner[Any] = Segmenter(head, 2, config)
    targets = torch.zeros(4, 4, 4, dtype=torch.uint8)
    split: Any = SegmentedImages(pixels(), targets, tuple("abcd"), ("a", "b"), ((0, 0, 0), (9, 9, 9)))
    if kind == "classifier":
        module = Classifier(nn.Sequential(head, nn.AdaptiveAvgPool2d(1), nn.Flatten()), config)
        split = Images(pixels(), torch.arange(4) % 2, tuple("abcd"), ("a", "b"))

    class Explode(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:  # as too high a rate would
                nn.init.constant_(head.weight, torch.nan)

    run = RunConfig(data="", output=tmp_path, epochs=3, accelerator="cpu")
    trainer = make_trainer(run, tmp_path / "last.ckpt", [Explode()], validate=False)
    data = LoaderData(partial(ImageLoader, split, 2, normalization=IMAGENET, train=True))
    with pytest.raises(UsageError, match=r"training diverged in epoch 2: lower --lr, which is 0\.1"):
        trainer.fit(module, data)
    last = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert last["epoch"] == 0
    assert all(bool(weight.isfinite().all()) for weight in last["state_dict"].values())


@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_validation_is_the_plain_cross_entropy_in_float32(kind: str) -> None:
    config = ImageOptimizerConfig(label_smoothing=0.2)
    inputs = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    head = nn.Conv2d(3, 3, 1)
    module: Learner[Any] = Segmenter(head, 3, config, torch.tensor([1.0, 2.0, 3.0]), hardest=0.3)
    targets = torch.arange(32).view(2, 4, 4) % 3
    if kind == "classifier":
        module = Classifier(nn.Sequential(head, nn.AdaptiveAvgPool2d(1), nn.Flatten()), config)
        targets = torch.tensor([0, 2])
    with torch.no_grad():
        expected = nn.functional.cross_entropy(module.model(inputs), targets)
        with torch.autocast("cpu", torch.bfloat16):  # as Lightning does with --precision bf16-mixed
            module.validation_step((inputs, targets), 0)
    assert float(module.val_loss.compute()) == pytest.approx(float(expected), rel=1e-6)


def test_losses_are_those_of_a_sample_where_batches_differ_in_size() -> None:
    module = Classifier(nn.Identity(), ImageOptimizerConfig(label_smoothing=0.0))
    logits = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 5.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1, 1, 0])
    for part in (slice(3), slice(3, None)):
        module.training_step((logits[part], labels[part]), 0)
        module.validation_step((logits[part], labels[part]), 0)
    expected = pytest.approx(float(nn.functional.cross_entropy(logits, labels)))
    assert float(module.train_loss.compute()) == float(module.val_loss.compute()) == expected


def test_the_last_step_of_an_epoch_has_the_mean_gradient_of_its_batches(tmp_path: Path) -> None:
    config = ImageOptimizerConfig(lr=0.1, warmup=0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    twin, module = copy.deepcopy(model), Classifier(model, config)
    images = Images(pixels(10), torch.arange(10) % 2, tuple("abcdefghij"), ("a", "b"))
    make = partial(ImageLoader, images, 2, normalization=IMAGENET, train=True)
    run = RunConfig(data="", output=tmp_path, epochs=2, accelerator="cpu")
    run.accumulate = 4
    make_trainer(run, tmp_path / "last.ckpt", [], False).fit(module, LoaderData(make))

    optimizer, schedule = config.optimization(twin, 4, 2)
    loader = make()
    for epoch in range(2):
        loader.set_epoch(epoch)
        batches = list(loader)
        for group in (batches[:4], batches[4:]):  # five batches
            optimizer.zero_grad()
            torch.stack([module.loss(twin(inputs), labels) for inputs, labels in group]).mean().backward()
            optimizer.step()
            schedule.step()
    torch.testing.assert_close(model.state_dict(), twin.state_dict())


def pixels(size: int = 4) -> Tensor:
    return torch.randint(256, (size, 3, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
