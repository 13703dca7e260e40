"""What experiments on images with masks do: train, and judge what was saved."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from mgic_geo.complexity import complexity
from mgic_geo.files import replacing
from mgic_geo.model_file import ImageCard
from mgic_geo.training.config import blaming
from mgic_geo.training.data import MakeLoader
from mgic_geo.training.image_config import ImageConfig
from mgic_geo.training.image_training import train_images
from mgic_geo.training.outcome import Judgement
from mgic_geo.training.run import Fitted, load_for
from mgic_geo.training.segmentation_config import SegmentationConfig
from mgic_geo.training.segmentation_data import Split, look_at, whole_batches
from mgic_geo.training.segmentation_evaluation import SegmentationEvaluation, evaluate_segmenter
from mgic_geo.training.segmentation_plots import plot_iou, plot_segmentations
from mgic_geo.training.segmentation_report import SegmenterSummary, class_table, summarize_segmenter
from mgic_geo.training.segmenter import Segmenter


def train_segmenter(
    config: SegmentationConfig,
    card: ImageCard,
    size: int,
    train: MakeLoader,
    val: MakeLoader | None,
    weight: Tensor | None = None,
) -> Fitted | None:
    """
    Train the model of ``card``, and save it on rank 0.

    Args:
        config: the run's settings.
        card: the model.
        size: the number of training images, to be told.
        train: makes the training loader.
        val: makes the validation loader, if there is one.
        weight: (C,) weights of the classes in the loss; None: all equal.

    Returns:
        The outcome on rank 0, None on all others.
    """

    def learner(model: nn.Module) -> Segmenter:
        for module in model.modules():
            if config.norm_momentum is not None and isinstance(module, nn.BatchNorm2d):
                module.momentum = config.norm_momentum
        return Segmenter(model, len(card.classes), config, weight, config.ohem, config.seed)

    return train_images(config, card, size, learner, train, val)


def judge_segmenter(
    config: ImageConfig, path: Path, split: Split, fitted: Fitted, workers: int | None = None
) -> Judgement[SegmentationEvaluation, SegmenterSummary]:
    """
    Evaluate the saved model at ``path`` on whole images, and write the table of classes beside it.

    Its pictures are iou.png and gallery.png.

    Args:
        config: the run's settings.
        path: the model.
        split: the images to judge it on.
        fitted: the training's rows, none where nothing was trained, and the device to evaluate on.
        workers: processes that read files.
    """
    model, card = load_for(path, ImageCard, split.classes, config.data)
    cost = complexity(model, torch.zeros(1, 3, *card.size))
    with blaming("evaluation"):
        batches = whole_batches(split, card.normalization, workers)(device=fitted.device)
        result = evaluate_segmenter(model, batches, card.classes, fitted.device)

    folder = path if path.is_dir() else path.parent
    with replacing(folder / "iou.md") as temporary:
        temporary.write_text(class_table(result) + "\n", encoding="utf-8")
    summary = summarize_segmenter(
        card.model,
        config.data,
        result,
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        device=fitted.device,
        history=fitted.rows,
    )

    @torch.inference_mode()
    def look(index: int) -> tuple[Tensor, Tensor, Tensor]:
        image, mask = look_at(split, index)
        logits = model(card.normalization(image[None].to(fitted.device)))
        return image, mask, logits.argmax(1)[0].cpu()

    def draw() -> None:
        plot_iou(folder / "iou.png", result, split.palette)
        plot_segmentations(folder / "gallery.png", look, split.name, result, split.palette)

    return Judgement(result, summary, draw)
