"""A command line from the fields of a dataclass, with a help text that is good to read."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import tyro

ConfigT = TypeVar("ConfigT")


def command_line(
    config: type[ConfigT],
    argv: Sequence[str] | None,
    description: str | None,
    defaults: Mapping[str, Any] | None = None,
    renamed: Mapping[str, str] | None = None,
) -> ConfigT:
    """Read the flags of ``config`` from a command line.

    tyro does it, and shows the docstring below a field as the flag's help. Left alone it breaks that text
    where the source breaks it, and lets the terminal cut the description amid words; and a default of None,
    which the text explains, it would show as a value to give.

    Args:
        config: A dataclass.
        argv: The arguments; None for those of the process.
        description: The text at the head of ``--help``, such as the script's docstring; indented lines stay
            as they are.
        defaults: Values of fields that take the place of the class's own.
        renamed: What flags of earlier versions are called now, with their values.

    Raises:
        TypeError: If ``defaults`` names a field that ``config`` has not.
    """
    texts, hints, given = field_texts(config), get_type_hints(config, include_extras=True), defaults or {}
    if unknown := given.keys() - hints.keys():
        raise TypeError(f"{config.__name__} has no field {', '.join(sorted(unknown))}")
    shown: list[Any] = []
    for field in _fields(config):
        default = {"default": field.default, "default_factory": field.default_factory}
        if field.name in given:
            default = {"default": given[field.name]}
        hint = Annotated[hints[field.name], _shown(hints[field.name], texts.get(field.name))]
        shown.append((field.name, hint, dataclasses.field(**default)))
    twin = dataclasses.make_dataclass(config.__name__, shown, kw_only=True)
    given_now = [(renamed or {}).get(word, word) for word in (sys.argv[1:] if argv is None else argv)]
    with _reader_may_leave():
        values = tyro.cli(twin, args=given_now, description=_wrapped(description or ""))
    return config(**{field.name: getattr(values, field.name) for field in _fields(config)})


def field_texts(config: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass and its bases, as one line."""
    texts: dict[str, str] = {}
    for base in reversed([base for base in config.__mro__ if dataclasses.is_dataclass(base)]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in pairwise(tree.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = " ".join(text.split())
    return texts


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """End the process without a traceback when the help's reader, such as ``head``, closes the pipe first."""
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
    except BrokenPipeError as error:
        # Python flushes once more on its way out, and would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from error


def _fields(config: type) -> tuple[dataclasses.Field[Any], ...]:
    assert dataclasses.is_dataclass(config)
    return dataclasses.fields(config)


def _shown(hint: Any, text: str | None) -> Any:
    """Return tyro's settings of one flag: its text, and FLOAT instead of {None}|FLOAT."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    optional = len(kinds) == 1 < len(get_args(hint)) and isinstance(kinds[0], type)
    return tyro.conf.arg(
        help=text,
        metavar=kinds[0].__name__.upper() if optional else None,
        help_behavior_hint=lambda default: f"(default: {default})" if default not in ("", "None") else "",
    )


def _wrapped(description: str) -> str:
    """Wrap the paragraphs that are not indented. tyro would join their lines, if they began with a letter."""
    width = min(shutil.get_terminal_size().columns, 100) - 2
    paragraphs = inspect.cleandoc(description).split("\n\n")
    return "\n\n".join(
        text
        if text.startswith(" ")
        else textwrap.indent(textwrap.fill(text, width, break_on_hyphens=False), " ")
        for text in paragraphs
    )
