"""The figures at the end of a segmenter's run: the summary, and a table of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mgic_geo.text_table import padded, percent
from mgic_geo.training.report import Summary, circumstances
from mgic_geo.training.segmentation.evaluation import SegmentationEvaluation


@dataclass(frozen=True, kw_only=True)
class SegmenterSummary(Summary):
    """What is said of a segmenter's run: a figure is NaN where no label is there to judge by."""

    miou: float
    standard_error: float
    pixel_accuracy: float
    class_accuracy: float
    class_iou: dict[str, float]
    images: int
    held_out_miou: float | None

    def scores(self) -> dict[str, str]:
        """Return the lines that say how good the model is."""
        images = f"{self.images:,} image{'s' if self.images != 1 else ''}"
        error = f"± {percent(self.standard_error, '')} (one standard error, {images})"
        rows = {
            "mIoU": f"{percent(self.miou)} {error}",
            "pixel accuracy": percent(self.pixel_accuracy),
            "mean class accuracy": percent(self.class_accuracy),
        }
        if self.held_out_miou is not None:
            rows["mIoU, held out of train"] = f"{percent(self.held_out_miou)}, after the last epoch"
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
    return SegmenterSummary(
        miou=result.miou,
        standard_error=result.standard_error(),
        pixel_accuracy=result.accuracy,
        class_accuracy=result.class_accuracy,
        class_iou=dict(zip(result.classes, result.class_iou.tolist(), strict=True)),
        images=len(result.confusions),
        held_out_miou=history[-1].get("val_miou") if history else None,
        **circumstances(model, data, parameters, multiply_adds, device, history),
    )


def class_table(result: SegmentationEvaluation) -> str:
    """Return IoU, share found and share of the labelled pixels of each class, as a Markdown table."""
    shares = result.confusion.sum(1) / result.confusion.sum()
    columns = (result.class_iou, result.class_recall, shares)
    rows = [["class", "IoU %", "found %", "pixels %"]]
    for name, *figures in zip(result.classes, *map(torch.Tensor.tolist, columns), strict=True):
        rows.append([name, *(percent(figure, "") for figure in figures)])
    rows.append(["mean", percent(result.miou, ""), percent(result.class_accuracy, ""), ""])
    lines = [f"| {' | '.join(row)} |" for row in padded(rows)]
    first, *others = (len(cell) for cell in padded(rows)[0])
    rule = "|" + "-" * (first + 2) + "|" + "|".join("-" * (width + 1) + ":" for width in others) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
