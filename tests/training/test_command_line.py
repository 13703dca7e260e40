from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from mgic_geo.training.command_line import command_line


@dataclass(kw_only=True)
class Base:
    rate: float | None = None
    """Highest rate. By default that of
    10 others (with a line that starts in no letter)."""
    epochs: int = 3
    """Passes."""


@dataclass(kw_only=True)
class Config(Base):
    epochs: int = 5
    """Passes over all."""
    kind: Literal["a", "b"] = "a"
    output: Path | None = None
    names: list[str] = field(default_factory=list)


DESCRIPTION = """
Do a thing well.

Paragraphs are wrapped to the width of the terminal, whatever the width of the source is, also (here) where
10 begins a line.

    python thing.py --rate 1
"""


def shown(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    with pytest.raises(SystemExit):
        command_line(Config, arguments, DESCRIPTION, {"kind": "b"})
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_flags_become_the_fields() -> None:
    assert command_line(Config, [], None) == Config()
    config = command_line(
        Config, ["--rate", "0.5", "--epochs", "2", "--names", "x", "y"], None, {"kind": "b"}
    )
    assert type(config) is Config
    assert config == Config(rate=0.5, epochs=2, kind="b", names=["x", "y"])


def test_flags_of_earlier_versions_stand_for_those_of_now() -> None:
    renamed = {"--twice": "--epochs=2"}
    assert command_line(Config, ["--twice", "--kind", "b"], None, renamed=renamed) == Config(
        epochs=2, kind="b"
    )


def test_help_wraps_paragraphs_and_hides_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    monkeypatch.setattr("sys.argv", ["thing.py"])
    text = shown(capsys, ["--help"])
    assert max(map(len, text.splitlines())) <= 72
    assert "\n Paragraphs are wrapped to the width of the terminal, whatever the\n width of" in text
    assert "    python thing.py --rate 1" in text
    words = " ".join(text.replace("│", " ").split())
    assert "--rate FLOAT Highest rate. By default that of 10 others (with a line" in words
    assert "Passes over all. (default: 5)" in words
    assert "--output PATH" in words
    assert "(default: b)" in words
    assert "None" not in words


def test_wrong_values_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--epochs" in shown(capsys, ["--epochs", "many"])
    assert "--epochs INT" in shown(capsys, ["--epoch", "3"])


def test_defaults_must_be_fields() -> None:
    with pytest.raises(TypeError, match="Config has no field speed"):
        command_line(Config, [], None, {"speed": 1})


@pytest.mark.parametrize("words", [1, 10_000])  # buffered until the end, and more than a buffer holds
def test_help_whose_reader_has_left_ends_quietly(words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:  # closing it flushes, as Python does on its way out
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as ended:
            command_line(Config, ["--help"], "word " * words)
        monkeypatch.undo()
    assert ended.value.code == 1
