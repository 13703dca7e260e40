import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from mgic_geo.training.checkpoint import AtomicCheckpointIO
from mgic_geo.training.errors import UsageError


class KillAt(L.Callback):
    """Stop the process's training as abruptly as an exception can, before a given epoch's second step."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, index: int
    ) -> None:
        if (trainer.current_epoch, index) == (self.epoch, 1):
            raise RuntimeError("killed")


def weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("val", [False, True])
def test_a_resumed_run_ends_with_the_same_bits(
    fit: Callable[..., Any], tmp_path: Path, optimizer: str, val: bool
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fit(folder=whole, optimizer=optimizer, val=val)
    for epoch in (1, 2, 2):
        with pytest.raises(RuntimeError, match="killed"):
            fit((KillAt(epoch),), folder=broken, resume=epoch > 1, optimizer=optimizer, val=val)
    _, _, history = fit(folder=broken, resume=True, optimizer=optimizer, val=val)
    expected, got = weights(whole), weights(broken)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert [row["epoch"] for row in history.rows] == [1, 2, 3, 4]


def test_the_seed_of_each_epoch_matters(fit: Callable[..., Any], tmp_path: Path, monkeypatch: Any) -> None:
    # Were dropout not seeded by the epoch, the test above would have to fail.
    fit(folder=tmp_path / "a")
    monkeypatch.setattr(
        "mgic_geo.training.classification.classifier.Classifier.on_train_epoch_start",
        lambda self: torch.manual_seed(9),
    )
    fit(folder=tmp_path / "b")
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert not all(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
    with pytest.raises(AttributeError):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2, "cannot be pickled": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_said_to_be_damaged(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": torch.ones(99)}, path)
    assert float(AtomicCheckpointIO().load_checkpoint(path, weights_only=True)["epoch"].sum()) == 99
    path.write_bytes(path.read_bytes()[:-50] if content is None else content)
    with pytest.raises(UsageError, match=r"last\.ckpt is damaged \(.+\); delete it and start anew$"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=True)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0\nframe #0: c10"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_full_disk_is_said_to_be_full(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def fail(checkpoint: Any, file: Path) -> None:
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UsageError) as caught:
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    cause = str(error).splitlines()[0]
    assert str(caught.value) == (
        f"cannot write {path}: {cause}; is the disk full? The last whole checkpoint is kept; "
        "free space and --resume"
    )
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]
