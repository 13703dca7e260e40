"""What is wrong with the files of a data set: how messages say it, and whether it stops the loading."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

SHOWN = 10  # problems that a message names, of hundreds

REMEDY = "Replace them, or leave them out with skip_corrupt=True (--skip-corrupt on the command line)."

# Told from other problems by this text, since caches keep problems as text.
_ODD_SIZE = "but the most frequent size is"


class CorruptImageError(ValueError):
    """Images or masks that cannot be used; the message says which, and why.

    Attributes:
        problems: All of them, a line each, where the message names ten of many.
    """

    problems: tuple[str, ...] = ()


def lines(problems: Mapping[str, str]) -> list[str]:
    """A line "file: problem" for each file with a problem, sorted."""
    return [f"{name}: {why}" for name, why in sorted(problems.items())]


def odd_size(shape: Sequence[int], usual: Sequence[int]) -> str:
    """What is wrong with an image that is not of the ``usual`` size, (…, H, W) both."""
    return f"is {shape[-2]} × {shape[-1]}, {_ODD_SIZE} {usual[-2]} × {usual[-1]}"


def shown(problems: Sequence[str]) -> list[str]:
    """The first problems, and how many more there are."""
    more = len(problems) - SHOWN
    return [*problems[:SHOWN], *([f"… and {more} more"] if more > 0 else [])]


def report(head: str, problems: Sequence[str]) -> str:
    """``head`` and, below it, the first problems."""
    return "\n  ".join([head, *shown(problems)])


def raise_or_warn(
    problems: Sequence[str],
    total: int,
    where: object,
    skip_corrupt: bool,
    one_size: str = "bring all images to one size",
) -> None:
    """Stop because of problems, or say what is left out.

    Args:
        problems: What is wrong, a line an image.
        total: How many images there are, those with problems included.
        where: What the data set is called in messages.
        skip_corrupt: Leave them out. The warning points to the caller of the function that calls this one.
        one_size: What to do where sizes differ.

    Raises:
        CorruptImageError: If there are problems, and they are not to be skipped.
    """
    if problems and not skip_corrupt:
        odd = sum(_ODD_SIZE in problem for problem in problems)
        remedies = [f"Sizes differ: {one_size}."] if odd else []
        # Where many differ there is nothing wrong with them, and what is left would be a poor data set.
        remedies += [REMEDY] if odd * 10 <= total else []
        raise corrupt(problems, where, "\n".join(remedies))
    if problems:
        head = f"left out as asked: {len(problems)} of {total} images of {where}"
        warnings.warn(report(head, problems), stacklevel=3)


def corrupt(problems: Sequence[str], where: object, remedy: str) -> CorruptImageError:
    """The error whose message names ``problems`` of the data set ``where`` and the remedy."""
    head = f"{len(problems)} file(s) of {where} cannot be used:"
    error = CorruptImageError(f"{report(head, problems)}\n{remedy}")
    error.problems = tuple(problems)
    return error
