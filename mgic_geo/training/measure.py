"""What a task is judged by, beside its loss: how the figure is called in logs, lines and pictures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """
    A figure in 0 … 1, the higher the better.

    Args:
        key: logged as ``train_<key>`` and ``val_<key>``.
        name: in a line of text.
        title: above a picture.
        unit: what its values are.
    """

    key: str
    name: str
    title: str
    unit: str


ACCURACY = Measure("accuracy", "accuracy", "Accuracy", "share classified rightly")
MIOU = Measure("miou", "mIoU", "Mean IoU", "intersection over union")
