"""The figures at the end of a run: a table to read, a file to compute with."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from mgic_geo.training.evaluate import Evaluation
from mgic_geo.training.files import replacing

TOP5 = 20  # from so many classes on five guesses say something: of fewer, chance hits more than a quarter
PACKAGES = ("mgic-geo", "torch", "torch-geometric", "lightning")


@dataclass(frozen=True)
class Summary:
    """What is said of a run: accuracies are fractions; what was not measured is None."""

    model: str
    data: str
    test_accuracy: float
    standard_error: float
    class_accuracy: float
    top5_accuracy: float | None
    test_samples: int
    parameters: int
    multiply_adds: int
    val_accuracy: float | None
    epochs: int | None
    seconds_per_epoch: float | None
    device: str
    versions: dict[str, str]

    def table(self) -> str:
        """Return the figures as aligned lines."""
        error = f"± {100 * self.standard_error:.1f} (one standard error, {self.test_samples:,} samples)"
        rows = {
            "model": self.model,
            "data": self.data,
            "test accuracy": f"{100 * self.test_accuracy:.1f} % {error}",
            **({} if self.top5_accuracy is None else {"top-5 accuracy": f"{100 * self.top5_accuracy:.1f} %"}),
            "mean class accuracy": f"{100 * self.class_accuracy:.1f} %",
            "parameters": f"{self.parameters:,}",
            "multiply-adds": f"{self.multiply_adds / 1e6:,.1f} M per sample",
        }
        if self.val_accuracy is not None:
            rows["validation accuracy"] = f"{100 * self.val_accuracy:.1f} %, after the last epoch"
        if self.epochs is not None and self.seconds_per_epoch is not None:
            rows["epochs"] = f"{self.epochs}, {self.seconds_per_epoch:.3g} s each; the last one is reported"
        rows["device"] = self.device
        rows["versions"] = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())

    def save(self, path: Path) -> None:
        """Write the figures as JSON."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def summarize(
    model: str,
    data: str,
    result: Evaluation,
    *,
    parameters: int,
    multiply_adds: int,
    device: torch.device,
    history: Sequence[dict[str, float]] = (),
) -> Summary:
    """Gather a :class:`Summary`; ``history`` has the epochs' rows, whose median of seconds is reported."""
    return Summary(
        model=model,
        data=data,
        test_accuracy=result.accuracy,
        standard_error=result.standard_error,
        class_accuracy=result.class_accuracy,
        top5_accuracy=result.top(5) if len(result.classes) >= TOP5 else None,
        test_samples=len(result.labels),
        parameters=parameters,
        multiply_adds=multiply_adds,
        val_accuracy=history[-1].get("val_accuracy") if history else None,
        epochs=len(history) or None,
        seconds_per_epoch=statistics.median(row["seconds"] for row in history) if history else None,
        device=device_name(device),
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    )


def device_name(device: torch.device) -> str:
    """Return the device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
