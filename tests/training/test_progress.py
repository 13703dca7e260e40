import math
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from tqdm import tqdm

from mgic_geo.training.classification.classifier import Classifier
from mgic_geo.training.optimizers import OptimizerConfig
from mgic_geo.training.progress import Progress


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
    fit((Progress(seconds_between=0),), val=True)
    err = capsys.readouterr().err
    last = r"epoch 4/4  loss \d\.\d{3}  accuracy +\d+\.\d% \|█+\| 100 %  \d\d:\d\d left"
    assert re.search(last, err)
    assert err.count("\n") == 5  # of the bar, and of the epochs' lines above it
    line = r"\repoch 3/4  loss \d\.\d{3}  accuracy \d+\.\d%  validation \d+\.\d%\n"
    assert re.search(line, err)


def test_after_ctrl_c_it_says_how_to_go_on(
    fit: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        fit((Progress(), Interrupt()))
    assert "stopped in epoch 3; add --resume" in capsys.readouterr().err


def test_the_bars_loss_is_that_of_a_sample_where_batches_share_a_step() -> None:
    progress = Progress()
    progress.bar = tqdm(total=5, disable=True)
    trainer: Any = SimpleNamespace(accumulate_grad_batches=4)
    module: Any = SimpleNamespace(device="cpu")
    progress.on_train_epoch_start(trainer, module)
    progress.shown = math.inf  # no text
    outputs = {"loss": torch.tensor(0.5), "counts": torch.tensor([1, 2])}
    progress.on_train_batch_end(
        trainer, Classifier(nn.Identity(), OptimizerConfig()), outputs, ([], [0, 0]), 0
    )
    assert float(progress.loss / progress.samples) == 2.0
