"""The machine says what the figures are of."""

import subprocess
from types import SimpleNamespace

import torch

from mgic_geo.benchmark import machine
from mgic_geo.benchmark.machine import _clocks, describe_machine, full_float32, processor


def test_machine():
    found = describe_machine("cpu")
    assert found["processor"] == processor()
    assert found["threads"] == torch.get_num_threads()
    assert found["cores"] >= 1
    assert found["versions"]["torch"] == torch.__version__
    assert "gpu" not in found


def test_products_and_convolutions_round_alike(monkeypatch):
    gpu = SimpleNamespace(name="a GPU", total_memory=2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr(machine, "_clocks", lambda: None)
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        assert describe_machine("cuda")["tf32"] == {"products": True, "convolutions": True}
        full_float32()
        assert describe_machine("cuda")["tf32"] == {"products": False, "convolutions": False}
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions


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
