"""What segmenters of images have in common: how they learn, and how they are judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from mgic_geo.complexity import complexity
from mgic_geo.datasets import label_counts
from mgic_geo.model_file import ImageCard
from mgic_geo.training.errors import blaming, write_text
from mgic_geo.training.outcome import Judgement
from mgic_geo.training.report import example_input
from mgic_geo.training.segmentation.class_weights import class_weights
from mgic_geo.training.segmentation.config import SegmentationConfig
from mgic_geo.training.segmentation.data import Split, look_at
from mgic_geo.training.segmentation.evaluation import SegmentationEvaluation, evaluate_segmenter
from mgic_geo.training.segmentation.plots import plot_iou, plot_segmentations
from mgic_geo.training.segmentation.report import SegmenterSummary, class_table, summarize_segmenter
from mgic_geo.training.segmentation.segmenter import MIOU, Segmenter
from mgic_geo.training.task import Task

ConfigT = TypeVar("ConfigT", bound=SegmentationConfig)


class SegmentationTask(Task[ConfigT, Split, ImageCard]):
    """The task to give each pixel a class; it leaves iou.md, iou.png and gallery.png."""

    kind = ImageCard
    samples = "images"

    def learner(self, config: ConfigT, card: ImageCard, samples: Split) -> Callable[[nn.Module], Segmenter]:
        """Return what makes a :class:`Segmenter`, with the class weights of these images."""
        weight = None
        if config.class_weights != "none":
            weight = class_weights(label_counts(samples, config.workers), config.class_weights)

        def make(model: nn.Module) -> Segmenter:
            for module in model.modules():
                if config.norm_momentum is not None and isinstance(module, nn.BatchNorm2d):
                    module.momentum = config.norm_momentum
            return Segmenter(model, len(card.classes), config, weight, config.ohem, config.seed)

        return make

    def judge(
        self,
        config: ConfigT,
        model: nn.Module,
        card: ImageCard,
        samples: Split,
        device: torch.device,
        history: Sequence[dict[str, float]],
    ) -> Judgement[SegmentationEvaluation, SegmenterSummary]:
        """Evaluate a saved model on whole images, and write the table of classes."""
        cost = complexity(model, example_input(card))
        with blaming("evaluation"):
            batches = self.loader(config, samples, card, False)(device=device)
            result = evaluate_segmenter(model, batches, card.classes, device)

        folder, table = config.output, class_table(result)
        write_text(folder / "iou.md", table + "\n")
        summary = summarize_segmenter(
            card.model,
            config.data,
            result,
            parameters=cost.parameters,
            multiply_adds=cost.multiply_adds,
            device=device,
            history=history,
        )

        @torch.inference_mode()
        def look(index: int) -> tuple[Tensor, Tensor, Tensor]:
            image, mask = look_at(samples, index)
            logits = model(card.normalization(image[None].to(device)))
            return image, mask, logits.argmax(1)[0].cpu()

        def draw() -> None:
            plot_iou(folder / "iou.png", result, samples.palette)
            plot_segmentations(folder / "gallery.png", look, samples.name, result, samples.palette)

        return Judgement(
            result,
            summary,
            draw,
            text=f"{summary.table()}\n\n{table}",
            score=result.miou,
            measure=MIOU,
            files=("iou.md", "iou.png", "gallery.png"),
            judged_on="val",
        )
