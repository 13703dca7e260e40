"""Listing and reading the files of folders and archives."""

import os
from pathlib import Path

import pytest

from mgic_geo.datasets.files import fingerprint, is_hidden, list_entries, list_files


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


def test_empty_folders_are_entries_and_change_the_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1")
    before = fingerprint(tmp_path)
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / ".cache").mkdir()
    assert list_entries(tmp_path) == ["a/1", "b/c/"]
    assert list_files(tmp_path) == ["a/1"]
    assert fingerprint(tmp_path) != before


def test_a_file_written_again_changes_the_fingerprint_even_if_its_size_stays(tmp_path: Path) -> None:
    write(tmp_path / "a", "x")
    before = fingerprint(tmp_path)
    write(tmp_path / "a", "y")
    os.utime(tmp_path / "a", (1, 1))
    assert fingerprint(tmp_path) != before


@pytest.mark.parametrize(
    ("path", "hidden"),
    [
        ("a/b.png", False), ("./a/b.png", False), ("./", False), ("a/.b", True), (".a/b", True),
        ("a/__MACOSX/b", True), ("__MACOSX", True), ("a/__MACOSX2/b", False),
    ],
)  # fmt: skip
def test_hidden_paths(path: str, hidden: bool) -> None:
    assert is_hidden(path) == hidden


def test_a_link_to_nothing_has_a_fingerprint_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "root" / "a")
    before = fingerprint(tmp_path / "root")
    os.symlink(tmp_path / "later", tmp_path / "root" / "b")
    dangling = fingerprint(tmp_path / "root")
    write(tmp_path / "later")
    assert len({before, dangling, fingerprint(tmp_path / "root")}) == 3
