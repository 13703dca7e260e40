"""The figures at the end of a segmenter's run: the summary, and a table of the classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mgic_geo.training.report import Summary, circumstances
from mgic_geo.training.segmentation.evaluation import SegmentationEvaluation


@dataclass(frozen=True, kw_only=True)
class SegmenterSummary(Summary):
    """What is said of a segmenter's run: the IoU of a class that occurs nowhere is None."""

    miou: float
    standard_error: float
    pixel_accuracy: float
    class_accuracy: float
    class_iou: dict[str, float | None]
    images: int
    held_out_miou: float | None

    def scores(self) -> dict[str, str]:
        """Return the lines that say how good the model is."""
        error = f"± {100 * self.standard_error:.1f} (one standard error, {self.images:,} images)"
        rows = {
            "mIoU": f"{100 * self.miou:.1f} % {error}",
            "pixel accuracy": f"{100 * self.pixel_accuracy:.1f} %",
            "mean class accuracy": f"{100 * self.class_accuracy:.1f} %",
        }
        if self.held_out_miou is not None:
            rows["mIoU, held out of train"] = f"{100 * self.held_out_miou:.1f} %, after the last epoch"
        return rows


def summarize_segmenter(
    model: str,
    data: str,
    result: SegmentationEvaluation,
    *,
    parameters: int,
    multiply_adds: int,
    device: torch.device,
    history: Sequence[dict[str, float]] = (),
) -> SegmenterSummary:
    """Gather a :class:`SegmenterSummary`; ``history`` has the epochs' rows."""
    ious = [None if math.isnan(iou) else iou for iou in result.class_iou.tolist()]
    return SegmenterSummary(
        miou=result.miou,
        standard_error=result.standard_error(),
        pixel_accuracy=result.accuracy,
        class_accuracy=result.class_accuracy,
        class_iou=dict(zip(result.classes, ious, strict=True)),
        images=len(result.confusions),
        held_out_miou=history[-1].get("val_miou") if history else None,
        **circumstances(model, data, parameters, multiply_adds, device, history),
    )


def class_table(result: SegmentationEvaluation) -> str:
    """Return IoU, share found and share of the labelled pixels of each class, as a Markdown table."""
    shares = result.confusion.sum(1) / result.confusion.sum()
    columns = (result.class_iou, result.class_recall, shares)
    lines = [("class", "IoU %", "found %", "pixels %")]
    for name, *figures in zip(result.classes, *map(torch.Tensor.tolist, columns), strict=True):
        iou, found, share = ("–" if math.isnan(figure) else f"{100 * figure:.1f}" for figure in figures)
        lines.append((name, iou, found, share))
    lines.append(("mean", f"{100 * result.miou:.1f}", f"{100 * result.class_accuracy:.1f}", ""))
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    rows = [
        "| " + " | ".join([name.ljust(first), *map(str.rjust, figures, others)]) + " |"
        for name, *figures in lines
    ]
    rule = "|" + "-" * (first + 2) + "|" + "|".join("-" * (width + 1) + ":" for width in others) + "|"
    return "\n".join([rows[0], rule, *rows[1:]])
