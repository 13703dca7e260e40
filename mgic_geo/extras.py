"""Optional packages: what is missing is named, and the extra that brings it."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["needs"]


def needs(what: str, extra: str, *packages: str) -> None:
    """Look whether packages are installed, without importing them.

    Raises:
        ModuleNotFoundError: If one is not, with the command that installs ``extra``.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ModuleNotFoundError(
            f"{what} needs {', '.join(missing)}; install the extra: pip install 'mgic-geo[{extra}]'",
            name=missing[0],
        )
