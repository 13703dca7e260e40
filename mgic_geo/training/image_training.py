"""The training that classifiers and segmenters of images share, from the card to the saved model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mgic_geo.model_file import ImageCard, save_model
from mgic_geo.training.data import ImageData, MakeLoader
from mgic_geo.training.image_config import ImageConfig
from mgic_geo.training.learner import Learner
from mgic_geo.training.run import Fitted, build, fit


def train_images(
    config: ImageConfig,
    card: ImageCard,
    size: int,
    learner: Callable[[nn.Module], Learner[Any]],
    train: MakeLoader,
    val: MakeLoader | None,
) -> Fitted | None:
    """
    Train the model of ``card``, and save it on rank 0.

    Args:
        config: the run's settings.
        card: the model.
        size: the number of training images, to be told.
        learner: makes the Lightning module of the model.
        train: makes the training loader.
        val: makes the validation loader, if there is one.

    Returns:
        The outcome on rank 0, None on all others.
    """
    model = build(config, card, size, "images")
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fitted = fit(
        config,
        learner(model),
        ImageData(train, val),
        validate=val is not None,
        accumulate=config.accumulate,
        ema=config.ema,
    )
    if fitted is not None:
        save_model(config.output / "model.safetensors", model, card)
    return fitted
