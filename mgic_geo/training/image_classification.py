"""What experiments on labelled images do alike: train, and judge what was saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mgic_geo.complexity import complexity
from mgic_geo.training.config import blaming
from mgic_geo.training.data import ImageData, MakeLoader
from mgic_geo.training.evaluate import Evaluation, evaluate
from mgic_geo.training.image_config import ImageConfig
from mgic_geo.training.image_plots import plot_images
from mgic_geo.training.model_file import ImageCard, save_model
from mgic_geo.training.module import Classifier
from mgic_geo.training.plots import plot_confusion
from mgic_geo.training.report import Summary, summarize
from mgic_geo.training.run import Fitted, build, fit, load_for


def train_images(
    config: ImageConfig, card: ImageCard, size: int, train: MakeLoader, val: MakeLoader | None
) -> Fitted | None:
    """
    Train the model of ``card``, and save it on rank 0.

    Args:
        config: the run's settings.
        card: the model.
        size: the number of training images, to be told.
        train: makes the training loader.
        val: makes the validation loader, if there is one.

    Returns:
        The outcome on rank 0, None on all others.
    """
    model = build(config, card, f"{size:,} training images")
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fitted = fit(
        config,
        Classifier(model, len(card.classes), config, config.seed),
        ImageData(train, val),
        validate=val is not None,
        accumulate=config.accumulate,
        ema=config.ema,
    )
    if fitted is not None:
        save_model(config.output / "model.safetensors", model, card)
    return fitted


def judge_images(
    config: ImageConfig,
    path: Path,
    classes: Sequence[str],
    batches: Callable[[ImageCard], MakeLoader],
    picture: Callable[[ImageCard, int], Tensor],
    fitted: Fitted,
) -> tuple[Evaluation, Summary]:
    """
    Evaluate the saved model at ``path`` and draw its confusions and hardest images beside it.

    Args:
        config: the run's settings.
        path: the model.
        classes: class names of the test images.
        batches: makes the maker of test batches for a model.
        picture: returns what a model sees of test image i, (3, H, W) uint8.
        fitted: the training's rows, none where nothing was trained, and the device to evaluate on.
    """
    model, card = load_for(path, ImageCard, classes, config.data)
    cost = complexity(model, torch.zeros(1, 3, *card.size))
    with blaming("evaluation"):
        result = evaluate(model, batches(card)(device=fitted.device), card.classes, fitted.device)
    folder = path if path.is_dir() else path.parent
    plot_confusion(folder / "confusion.png", result)
    plot_images(folder / "gallery.png", lambda index: picture(card, index), result)
    summary = summarize(
        card.model,
        config.data,
        result,
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        device=fitted.device,
        history=fitted.rows,
    )
    return result, summary
