import multiprocessing

import pytest

from mgic_geo.datasets.lock import locked


def test_a_starting_worker_does_not_wait_for_its_parent(tmp_path, monkeypatch):
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with locked(tmp_path / "x"):
        with pytest.raises(RuntimeError, match="load data under `if"), locked(tmp_path / "x"):
            pass
        with locked(tmp_path / "y"):  # nobody holds this one
            pass
