"""The figures at the end of a run: a table to read, a file to compute with."""

from __future__ import annotations

import json
import math
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
from mgic_geo.training.errors import write_text

PACKAGES = ("mgic-geo", "torch", "torch-geometric", "lightning")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What is said of any run: scores are fractions; what was not measured is None, or NaN."""

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
        """Write the figures as JSON, which has no NaN: what was not measured is null."""
        write_text(path, json.dumps(_without_nan(asdict(self)), indent=2, allow_nan=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


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
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads != 1 else ''}"
