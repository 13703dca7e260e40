"""What a run was begun with: its data's classes and number of training samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from mgic_geo.training.claims import read_settings
from mgic_geo.training.config import RunConfig
from mgic_geo.training.errors import UsageError, write_text


def claim_data(config: RunConfig, checkpoint: Path, classes: Sequence[str], samples: int) -> None:
    """Record classes and samples as ``data.yaml`` in the output folder, unless the run there had others.

    The settings name the data by a path, behind which it may change: then the schedule would have other
    steps, or the model other classes. A run without the record, of an earlier version, gets it.

    Args:
        config: The run's settings.
        checkpoint: Where the run keeps its last checkpoint.
        classes: Names, in the order of the labels.
        samples: For training, those held out for validation left out.

    Raises:
        UsageError: If the run is resumed with other data.
    """
    record, now = config.output / "data.yaml", {"samples": samples, "classes": list(classes)}
    before = read_settings(record) if checkpoint.exists() and record.exists() else None
    if before is not None and before != now:
        raise UsageError(
            f"the data in {config.data} changed since the run began: {_changes(before, now)}; bring it back "
            "as it was, or start a new run in another --output"
        )
    write_text(record, yaml.safe_dump(now, sort_keys=False, allow_unicode=True))


def _changes(before: dict, now: dict) -> str:
    had, has = before.get("classes", []), now["classes"]
    found = [
        f"{what} {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
        for what, names in (
            ("it lacks the classes", [name for name in had if name not in has]),
            ("it has the new classes", [name for name in has if name not in had]),
        )
        if names
    ]
    if (samples := before.get("samples")) != now["samples"]:
        found.append(f"it had {samples} training samples and has {now['samples']}")
    return "; ".join(found) or "its classes are in another order"
