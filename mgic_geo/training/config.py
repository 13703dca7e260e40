"""What every experiment is asked for, the checks on it, and its record on disk."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from mgic_geo.files import replacing

# What says nothing about a run's result, so that a resumed run may change it: where it lies, whether it
# continues, how many processes read its images (batches do not depend on that), and whether all were read
# beforehand, which stops a run with corrupt ones but leaves none out by itself.
FREE_ON_RESUME = frozenset({"output", "resume", "workers", "verify"})


GRACE = (
    10.0  # seconds in which an error that all ranks have comes to rank 0 as well, and its launcher sees it
)


class UsageError(Exception):
    """Something the person at the command line can mend: shown as one message, without a traceback."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """
    End the process with status 2 and the bare message when a :class:`UsageError` is raised inside.

    Most errors come on all ranks, and rank 0 says them. An error that another rank has alone is said after a
    wait, by :func:`_let_rank_0_speak`.
    """
    try:
        yield
    except UsageError as error:
        if global_rank() > 0:
            _let_rank_0_speak()
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from error


def _let_rank_0_speak() -> None:
    """Wait for the end that follows an error of rank 0; return if none comes."""
    parent, end = os.getppid(), time.monotonic() + GRACE
    while time.monotonic() < end:
        time.sleep(0.1)  # torchrun ends this process here
        if os.getppid() != parent:  # Lightning's launcher does not, but this process is a child of rank 0
            raise SystemExit(2)


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Turn errors of bad values and bad files inside into a :class:`UsageError` that begins with ``what``."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UsageError(f"{what}: {error}") from error


def write_text(path: Path, text: str, flag: str = "--output") -> None:
    """Write a text file whole or not at all; errors are those of ``flag``, which gave the place."""
    with blaming(flag), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_target(flag: str, path: Path | None) -> None:
    """Raise :class:`UsageError` if no file could be written to ``path``: said before the work, not after."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{flag} {path} is a folder; name a file in it")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise UsageError(f"{flag} {path}: {above} is a file, not a folder; choose another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{flag} {path}: nothing may be written into {above}; choose another place")


def flag(name: str) -> str:
    """Return how the field ``name`` is called on the command line."""
    return f"--{name.replace('_', '-')}"


@dataclass(kw_only=True)
class Flags:
    """The base of all scripts' flags, whose values are checked together, before any work is done."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy; an empty list if nothing is."""
        return []

    def validate(self) -> None:
        """Raise :class:`UsageError` with all that is wrong."""
        if found := self.problems():
            raise UsageError("\n       ".join(found))

    def at_least(self, *, hint: str = "", **lows: float) -> list[str]:
        """Return what lies below its lowest value, or is not finite; what is None counts as right."""
        return [
            f"{flag(name)} is {value}; give {low}{hint} or more"
            for name, low in lows.items()
            if (value := getattr(self, name)) is not None and not low <= value < math.inf
        ]

    def shares(self, *names: str) -> list[str]:
        """Return what is no share that leaves something: 0 or more, under 1."""
        return [
            f"{flag(name)} is {value}; give 0 or more, under 1"
            for name in names
            if not 0 <= (value := getattr(self, name)) < 1
        ]


@dataclass(kw_only=True)
class RunConfig(Flags):
    """Flags that all experiments share."""

    data: str
    """Data to train on."""
    epochs: int = 30
    """Passes over the training set."""
    batch_size: int = 16
    """Samples per step, on each device."""
    seed: int = 0
    """Decides initial weights, order, augmentation and dropout. Same seed, same machine: same result."""
    output: Path
    """Folder for everything the run writes."""
    resume: bool = False
    """Continue the run in --output from its last finished epoch, or start it if there is none yet. On CPU the
    weights come out as if it had never been interrupted, bit for bit."""
    devices: int = 1
    """Processes to train with: GPUs, or CPU processes. Under torchrun its own numbers count instead."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic while training. Evaluation and validation are always float32."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """auto takes a GPU if there is one."""
    compile: bool = False
    """Compile the model with torch.compile: a slow first step, faster ones after."""

    # Only experiments on images have flags for these.
    accumulate = 1
    ema = 0.0
    channels_last = False

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        gpus = torch.cuda.device_count()
        found = super().problems() + self.at_least(epochs=1, batch_size=2, seed=0, devices=1)
        if self.seed >= 2**63:
            found.append(f"--seed is {self.seed}; give a number below 2**63")
        if self.accelerator == "gpu" and not gpus:
            found.append("--accelerator gpu, but PyTorch sees no GPU here; use --accelerator cpu")
        if self.precision == "16-mixed" and (self.accelerator == "cpu" or not gpus):
            found.append("--precision 16-mixed needs a GPU; on CPU use bf16-mixed or 32-true")
        if self.accelerator != "cpu" and 0 < gpus < self.devices:
            found.append(f"--devices is {self.devices}, but PyTorch sees {gpus} GPU(s); give at most that")
        return found


def global_rank() -> int:
    """Return the rank of this process, as torchrun or Lightning's launcher says; 0 without one."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))


def plain(config: Any) -> dict[str, Any]:
    """Return a dataclass as a dictionary of YAML's own types."""

    def convert(value: Any) -> Any:
        if isinstance(value, Path):
            return str(value)
        return [convert(item) for item in value] if isinstance(value, tuple | list) else value

    return {field.name: convert(getattr(config, field.name)) for field in dataclasses.fields(config)}


def claim_output(config: RunConfig, checkpoint: Path) -> None:
    """
    Record ``config`` as ``config.yaml`` in its output folder, unless that would mix two runs.

    Args:
        config: the run's settings.
        checkpoint: where the run keeps its last checkpoint.

    Raises:
        UsageError: the folder holds a run and ``--resume`` was not given, or the run had other settings.
    """
    record = Path(config.output) / "config.yaml"
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
            _refuse_changes(config.output, before, settings)
    write_text(record, yaml.safe_dump(settings, sort_keys=False))


def claim_folder(output: Path, config: Any, result: str) -> None:
    """
    Record ``config``, a dataclass, as ``config.yaml`` in a folder, unless another run has it.

    For what takes minutes and is done again instead of resumed: the same settings give the same results, so
    they may overwrite them. A run that ended without its result, as by a mistyped flag, has nothing to lose.

    Args:
        output: the folder.
        config: the run's settings.
        result: the file of the folder that holds the run's results.

    Raises:
        UsageError: the folder has the results of other settings, or the record of another kind of run.
    """
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
