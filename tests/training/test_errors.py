import os
import time
from pathlib import Path

import pytest

from mgic_geo.training import errors
from mgic_geo.training.errors import (
    UsageError,
    blaming,
    check_folder,
    check_target,
    global_rank,
    plain_errors,
    write_text,
)


def test_a_text_that_cannot_be_written_is_blamed_on_its_flag(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "table.md", "text\n")
    assert (tmp_path / "new" / "table.md").read_text() == "text\n"
    with pytest.raises(UsageError, match=r"^--plot: "):
        write_text(tmp_path / "new" / "table.md" / "below", "", "--plot")


def test_a_target_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_target("--output", None)
    check_target("--output", tmp_path / "new" / "folders" / "table.md")
    (tmp_path / "file").touch()
    check_target("--output", tmp_path / "file")
    with pytest.raises(UsageError, match=r"^--plot .* is a folder; name a file in it$"):
        check_target("--plot", tmp_path)
    with pytest.raises(UsageError, match="file is a file, not a folder; choose another place"):
        check_target("--output", tmp_path / "file" / "new" / "table.md")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(UsageError, match="nothing may be written into "):
        check_target("--output", tmp_path / "table.md")


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    check_folder("--output", tmp_path)
    check_folder("--output", tmp_path / "new" / "folders")
    (file := tmp_path / "file").touch()
    for folder in (file, file / "below"):
        with pytest.raises(UsageError, match=f"^--output {folder}: {file} is a file, not a folder; choose"):
            check_folder("--output", folder)


def test_plain_errors_show_the_message_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, plain_errors(), blaming("--data x"):
        raise ValueError("no such thing")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: --data x: no such thing\n"


@pytest.mark.parametrize("rank", [0, 3])
def test_other_ranks_speak_after_a_wait(
    rank: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "GRACE", 0.5)
    monkeypatch.setenv("RANK", str(rank))
    start = time.monotonic()
    with pytest.raises(SystemExit), plain_errors():
        raise UsageError("mine alone")
    assert (time.monotonic() - start >= 0.5) == (rank > 0)
    assert capsys.readouterr().err == "error: mine alone\n"


def test_other_ranks_are_silent_where_rank_0_has_ended(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    parents = iter([7, 7, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    with pytest.raises(SystemExit) as caught, plain_errors():
        raise UsageError("said by rank 0")
    assert caught.value.code == 2
    assert capsys.readouterr().err == ""


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError), plain_errors(), blaming("--data x"):
        raise RuntimeError("a bug")


def test_the_rank_is_read_from_the_launchers_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert global_rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert global_rank() == 1
    monkeypatch.setenv("RANK", "3")
    assert global_rank() == 3
