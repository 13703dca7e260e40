"""The figures at the end of a classifier's run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mgic_geo.text_table import percent
from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.report import Summary, circumstances

TOP5 = 20  # from so many classes on five guesses say something: of fewer, chance hits more than a quarter


@dataclass(frozen=True, kw_only=True)
class ClassifierSummary(Summary):
    """What is said of a classifier's run."""

    test_accuracy: float
    standard_error: float
    class_accuracy: float
    top5_accuracy: float | None
    test_samples: int
    val_accuracy: float | None

    def scores(self) -> dict[str, str]:
        """Return the lines that say how good the model is."""
        error = f"± {percent(self.standard_error, '')} (one standard error, {self.test_samples:,} samples)"
        rows = {"test accuracy": f"{percent(self.test_accuracy)} {error}"}
        if self.top5_accuracy is not None:
            rows["top-5 accuracy"] = percent(self.top5_accuracy)
        rows["mean class accuracy"] = percent(self.class_accuracy)
        if self.val_accuracy is not None:
            rows["validation accuracy"] = f"{percent(self.val_accuracy)}, after the last epoch"
        return rows


def summarize(
    model: str,
    data: str,
    result: Evaluation,
    *,
    parameters: int,
    multiply_adds: int,
    device: torch.device,
    history: Sequence[dict[str, float]] = (),
) -> ClassifierSummary:
    """Gather a :class:`ClassifierSummary`; ``history`` has the epochs' rows."""
    return ClassifierSummary(
        test_accuracy=result.accuracy,
        standard_error=result.standard_error,
        class_accuracy=result.class_accuracy,
        top5_accuracy=result.top(5) if len(result.classes) >= TOP5 else None,
        test_samples=len(result.labels),
        val_accuracy=history[-1].get("val_accuracy") if history else None,
        **circumstances(model, data, parameters, multiply_adds, device, history),
    )
