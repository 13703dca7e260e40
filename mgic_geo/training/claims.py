"""A run's settings on disk, and the refusal to mix two runs in one folder."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import yaml

from mgic_geo.training.config import RunConfig, flag
from mgic_geo.training.errors import UsageError, blaming, check_folder, write_text

# What says nothing about a run's result, so that a resumed run may change it: where it lies, whether it
# continues, how many processes read its images (batches do not depend on that), and whether all were read
# beforehand, which stops a run with corrupt ones but leaves none out by itself.
FREE_ON_RESUME = frozenset({"output", "resume", "workers", "verify"})


def plain(config: Any) -> dict[str, Any]:
    """Return a dataclass as a dictionary of YAML's own types."""
    return {field.name: _plain_value(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain_value(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain_value(item) for item in value] if isinstance(value, tuple | list) else value


def claim_output(config: RunConfig, checkpoint: Path) -> None:
    """Record ``config`` as ``config.yaml`` in its output folder, unless that would mix two runs.

    Args:
        config: The run's settings.
        checkpoint: Where the run keeps its last checkpoint.

    Raises:
        UsageError: If the folder holds a run and ``--resume`` was not given, or the run had other settings.
    """
    check_folder("--output", config.output)
    record = config.output / "config.yaml"
    settings = plain(config) | {"processes": int(os.environ.get("WORLD_SIZE", config.devices))}
    if not checkpoint.exists() and (record.parent / "model.safetensors").exists():
        raise UsageError(
            f"{config.output} holds a model but no {checkpoint.name} to continue from; choose another folder "
            "with --output, or move the model away"
        )
    if not config.resume and checkpoint.exists():
        raise UsageError(
            f"{config.output} already holds a run. Add --resume to continue it, choose another folder with "
            "--output, or delete this one."
        )
    if record.exists() or checkpoint.exists():
        before = _read_record(record)
        if checkpoint.exists():
            _refuse_changes(config.output, _defaults(config) | before, settings)
    write_text(record, yaml.safe_dump(settings, sort_keys=False))


def claim_folder(output: Path, config: Any, result: str) -> None:
    """Record ``config``, a dataclass, as ``config.yaml`` in a folder, unless another run has it.

    For what takes minutes and is done again instead of resumed: the same settings give the same results, so
    they may overwrite them. A run that ended without its result, as by a mistyped flag, has nothing to lose.

    Args:
        output: The folder.
        config: The run's settings.
        result: The file of the folder that holds the run's results.

    Raises:
        UsageError: If the folder has the results of other settings, or the record of another kind of run.
    """
    check_folder("--output", output)
    record, settings = output / "config.yaml", plain(config)
    with blaming("--output"):
        if record.exists() and (before := read_settings(record)) != settings:
            if (output / result).exists():
                raise UsageError(
                    f"{output} already holds a run with other settings. Choose another folder with --output, "
                    "or delete this one."
                )
            if before is None or before.keys() != settings.keys():
                raise UsageError(
                    f"{record} is the record of something else and would be replaced; choose another --output"
                )
    write_text(record, yaml.safe_dump(settings, sort_keys=False))


def _defaults(config: RunConfig) -> dict[str, Any]:
    """What a run of an older version did in place of the flags that it did not have."""
    fields = (field for field in dataclasses.fields(config) if field.default is not dataclasses.MISSING)
    return {field.name: _plain_value(field.default) for field in fields}


def _read_record(record: Path) -> dict[str, Any]:
    if not record.exists():
        raise UsageError(f"{record} is missing, so this run's settings are unknown; choose another --output")
    settings = read_settings(record)
    if settings is None or "seed" not in settings:
        raise UsageError(f"{record} is not a run's record and would be replaced; choose another --output")
    return settings


def read_settings(record: Path) -> dict[str, Any] | None:
    """Return what a record holds, None if it is no record."""
    try:
        settings = yaml.safe_load(record.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None
    return settings if isinstance(settings, dict) else None


def _shown(value: Any) -> str:
    return "the default" if value is None else repr(value)


def _same_path(a: Any, b: Any) -> bool:
    """Whether both are paths, of one file or folder that exists."""
    if not isinstance(a, str) or not isinstance(b, str) or not Path(a).exists():
        return False
    return Path(a).resolve() == Path(b).resolve()


def _refuse_changes(output: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    if gone := sorted(before.keys() - now.keys() - FREE_ON_RESUME):
        raise UsageError(
            f"cannot resume {output}: another script or version made it, with {', '.join(map(flag, gone))}. "
            "Go on with that one, or start a new run in another --output."
        )
    changed = [
        f"{flag(name)}: the run has {_shown(had)}, you gave {_shown(gave)}"
        for name in sorted((before.keys() | now.keys()) - FREE_ON_RESUME)
        if (had := before.get(name)) != (gave := now.get(name))
        and not (name == "data" and _same_path(had, gave))
    ]
    if changed:
        raise UsageError(
            f"cannot resume {output} with other settings:\n  "
            + "\n  ".join(changed)
            + "\nRepeat the run's own values, or start a new run in another --output."
        )
