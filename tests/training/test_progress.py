import re
import sys
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest

from mgic_geo.training import Progress


class Interrupt(L.Callback):
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


def test_one_line_an_epoch_where_there_is_no_terminal(
    fit: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fit((Progress(),), val=True)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    pattern = r"epoch 3/4  loss \d\.\d{3}  accuracy \d+\.\d%  validation \d+\.\d%  \d\d:\d\d left"
    assert re.fullmatch(pattern, lines[2])


def test_one_bar_for_the_run_on_a_terminal(
    fit: Callable[..., Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit((Progress(seconds_between=0),))
    err = capsys.readouterr().err
    last = r"epoch 4/4  loss \d\.\d{3}  accuracy +\d+\.\d% \|█+\| 100 %  \d\d:\d\d left"
    assert re.search(last, err)
    assert err.count("\n") == 1


def test_after_ctrl_c_it_says_how_to_go_on(
    fit: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        fit((Progress(), Interrupt()))
    assert "stopped in epoch 3; add --resume" in capsys.readouterr().err
