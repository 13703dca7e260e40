import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from triton_kernels import DEVICE, kernels, random

from mgic_geo.graph import gpu
from mgic_geo.graph.gpu import reduce, when


def test_a_cpu_has_none():
    assert not when.applies(torch.ones(3))
    assert not when.serves(torch.ones(3))


def test_numbers_must_be_floats_in_rows():
    with kernels():
        assert when.applies(random(3, 3), random(2))
        assert not when.applies(random(3, 3), torch.ones(3, dtype=torch.long, device=DEVICE))
        assert not when.applies(random(3, 3).to_sparse())


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_who_follows_torchs_operators_gets_them():
    seen = []
    with kernels():
        torch.func.vmap(lambda x: seen.append(when.applies(x)) or x)(random(2, 2))
        with torch.utils.flop_counter.FlopCounterMode(display=False):
            seen.append(when.applies(random(2)))
        torch.jit.trace(lambda x: seen.append(when.applies(x)) or x, random(2), check_trace=False)
        assert when.applies(random(2))
    assert seen == [False, False, False]


def test_where_triton_fails_torch_goes_on(monkeypatch):
    def broken(*_):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(reduce, "neighbor_sum", broken)
    monkeypatch.setattr(when, "_WANTED", True)
    when._works.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"do not run on cpu \(no C compiler\).*MGIC_TRITON=0"):
            assert not when._works(torch.device("cpu"))
        assert not when._works(torch.device("cpu"))  # and says so once
    finally:
        when._works.cache_clear()


def test_they_work_here():
    pytest.importorskip("triton")
    when._works.cache_clear()
    assert when._works(torch.device(DEVICE))


def test_they_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("MGIC_TRITON", "0")
    again = importlib.util.module_from_spec(when.__spec__)
    when.__spec__.loader.exec_module(again)
    assert not again._works(torch.device(DEVICE))


def test_of_a_torch_whose_triton_fails_none_is_wanted(monkeypatch):
    again = importlib.util.module_from_spec(when.__spec__)
    for version, sound in (("2.13.1", False), ("2.14.0+cu130", True)):
        monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion(version))
        when.__spec__.loader.exec_module(again)
        assert again._SOUND is (sound and when._SOUND)


def test_layers_ask():
    with kernels():
        assert gpu.fits_norm(torch.nn.BatchNorm1d(4))
        assert not gpu.fits_norm(torch.nn.BatchNorm1d(4).eval())
        assert not gpu.fits_norm(torch.nn.BatchNorm1d(4, affine=False))
        assert not gpu.fits_norm(torch.nn.SyncBatchNorm(4))


@pytest.mark.parametrize(("triton", "waiting"), [("1", 2), ("0", 5)])
def test_no_cuda_graph_holds_what_waits_for_the_device(triton, waiting):
    """k-NN always; reductions where torch's operators do them."""
    pytest.importorskip("triton")
    code = """
import torch, mgic_geo
names = "knn", "knn_backend", "neighbor_max", "neighbor_max_values", "neighbor_sum"
print(*[torch.Tag.cudagraph_unsafe in getattr(torch.ops.mgic_geo, name).default.tags for name in names])
"""
    command, environment = [sys.executable, "-W", "ignore", "-c", code], os.environ | {"MGIC_TRITON": triton}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True"] * waiting + ["False"] * (5 - waiting)
