import os
from pathlib import Path

import pytest

from mgic_geo.files import replacing


def test_writes_into_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    with replacing(tmp_path / "new" / "file") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "new" / "file").read_text() == "whole"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(tmp_path / "file") as temporary:
        temporary.write_text("half \ud800", encoding="utf-8")
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_renamed_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, fsync, rename = [], os.fsync, os.replace
    monkeypatch.setattr("os.fsync", lambda file: (calls.append(os.fstat(file).st_size), fsync(file)))
    monkeypatch.setattr("os.replace", lambda *paths: (calls.append("renamed"), rename(*paths)))
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    assert calls == [5, "renamed"]
