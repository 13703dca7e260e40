"""The figures at the end of a run: a table to read, a file to compute with."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgic_geo.model_file import Card, ImageCard, ModelCard
from mgic_geo.training.config import write_text
from mgic_geo.training.evaluate import Evaluation

TOP5 = 20  # from so many classes on five guesses say something: of fewer, chance hits more than a quarter
PACKAGES = ("mgic-geo", "torch", "torch-geometric", "lightning")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What is said of any run: scores are fractions; what was not measured is None."""

    model: str
    data: str
    parameters: int
    multiply_adds: int
    epochs: int | None
    seconds_per_epoch: float | None
    device: str
    versions: dict[str, str]

    def scores(self) -> dict[str, str]:
        """Return the lines that say how good the model is."""
        raise NotImplementedError

    def table(self) -> str:
        """Return the figures as aligned lines."""
        rows = {"model": self.model, "data": self.data} | self.scores()
        rows["parameters"] = f"{self.parameters:,}"
        rows["multiply-adds"] = f"{self.multiply_adds / 1e6:,.1f} M per sample"
        if self.epochs is not None and self.seconds_per_epoch is not None:
            rows["epochs"] = f"{self.epochs}, {self.seconds_per_epoch:.3g} s each; the last one is reported"
        rows["device"] = self.device
        rows["versions"] = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())

    def save(self, path: Path) -> None:
        """Write the figures as JSON."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")


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
        error = f"± {100 * self.standard_error:.1f} (one standard error, {self.test_samples:,} samples)"
        rows = {"test accuracy": f"{100 * self.test_accuracy:.1f} % {error}"}
        if self.top5_accuracy is not None:
            rows["top-5 accuracy"] = f"{100 * self.top5_accuracy:.1f} %"
        rows["mean class accuracy"] = f"{100 * self.class_accuracy:.1f} %"
        if self.val_accuracy is not None:
            rows["validation accuracy"] = f"{100 * self.val_accuracy:.1f} %, after the last epoch"
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


def circumstances(
    model: str,
    data: str,
    parameters: int,
    multiply_adds: int,
    device: torch.device,
    history: Sequence[dict[str, float]] = (),
) -> dict[str, Any]:
    """Gather the values of :class:`Summary`; of the epochs' rows the median of seconds is reported."""
    return {
        "model": model,
        "data": data,
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "epochs": len(history) or None,
        "seconds_per_epoch": statistics.median(row["seconds"] for row in history) if history else None,
        "device": device_name(device),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def example_input(card: Card) -> Tensor:
    """Return an input of one sample for the model of ``card``: zeros, whose cost can be counted."""
    match card:
        case ImageCard():
            return torch.zeros(1, 3, *card.size)
        case ModelCard():
            return torch.zeros(1, card.points, 3)
    raise TypeError(f"a {type(card).__name__} does not say what its model's input is like")


def device_name(device: torch.device) -> str:
    """Return the device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
