"""Listing and reading the files of folders and archives."""

import os
from pathlib import Path

from mgic_geo.datasets.files import fingerprint, list_files


def write(path: Path, text: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_hidden_files_and_folders_are_not_listed(tmp_path: Path) -> None:
    root = tmp_path / ".data"  # hidden itself, but asked for
    write(root / "b" / "1")
    write(root / "a" / "deep" / "2")
    write(tmp_path / "elsewhere" / "3")
    os.symlink(tmp_path / "elsewhere", root / "c")
    before = fingerprint(root)
    for name in (".DS_Store", "a/.cache/4", "a/.ipynb_checkpoints/deep/5"):
        write(root / name)
    assert list_files(root) == ["a/deep/2", "b/1", "c/3"]
    assert fingerprint(root) == before


def test_a_link_to_nothing_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "root" / "a")
    before = fingerprint(tmp_path / "root")
    os.symlink(tmp_path / "later", tmp_path / "root" / "b")
    dangling = fingerprint(tmp_path / "root")
    write(tmp_path / "later")
    assert len({before, dangling, fingerprint(tmp_path / "root")}) == 3
