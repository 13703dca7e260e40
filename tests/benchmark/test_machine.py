"""The machine says what the figures are of."""

import subprocess

import torch

from mgic_geo.benchmark import machine
from mgic_geo.benchmark.machine import _clocks, describe_machine, processor


def test_machine():
    found = describe_machine("cpu")
    assert found["processor"] == processor()
    assert found["threads"] == torch.get_num_threads()
    assert found["cores"] >= 1
    assert found["versions"]["torch"] == torch.__version__
    assert "gpu" not in found


def test_missing_packages_have_no_version(monkeypatch):
    monkeypatch.setattr(machine, "PACKAGES", ("torch", "no-such-package"))
    assert describe_machine("cpu")["versions"]["no-such-package"] is None


def test_clocks(monkeypatch):
    def run(command, **options):
        assert "clocks.sm" in command[1]
        return subprocess.CompletedProcess(command, code, "550.54, 1980 MHz\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    code = 0
    assert _clocks() == "550.54, 1980 MHz"
    code = 9
    assert _clocks() is None
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert _clocks() is None
