"""What must hold for the folders of any data set."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

from .problems import shown


def check_one_root(where: object, roots: Collection[tuple[str, ...]]) -> None:
    """Raise a ValueError if splits lie in several folders ``roots``, given by the parts of their paths."""
    if len(roots) > 1:
        found = ", ".join(sorted("/".join(root) or "." for root in roots))
        raise ValueError(f"{where} holds several data sets ({found}); pass the path of one of them")


def subfolders(folders: Iterable[PurePosixPath], parent: tuple[str, ...]) -> set[str]:
    """The names of the folders in ``parent``, given all that hold files or nothing."""
    depth = len(parent)
    return {path.parts[depth] for path in folders if len(path.parts) > depth and path.parts[:depth] == parent}


def check_filled(where: object, empty: Collection[str], what: str) -> None:
    """Raise a ValueError if there are folders ``empty`` where each must hold ``what``, such as images."""
    if empty:
        names = ", ".join(shown(sorted(empty)))
        raise ValueError(f"{where} has folders without {what}: {names}; fill or remove them")


def check_classes(first: object, classes: Iterable[str], other: object, others: Iterable[str]) -> None:
    """Raise a ValueError unless two splits, called ``first`` and ``other``, hold the same classes."""
    if odd := sorted(set(classes) ^ set(others)):
        raise ValueError(
            f"{first} and {other} must hold the same class folders; "
            f"only one of them has {', '.join(shown(odd))}"
        )
