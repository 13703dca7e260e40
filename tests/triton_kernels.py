"""Our Triton kernels in tests: on a GPU where there is one, else interpreted on the CPU."""

import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from unittest import mock

import pytest
import torch

from mgic_geo import knn
from mgic_geo.graph.gpu import when
from mgic_geo.graph.neighbors import Neighbors
from mgic_geo.native import plain_torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _yes(_):
    return True


def _no(_):
    return False


@contextmanager
def kernels():
    """All tensors count as on a GPU."""
    pytest.importorskip("triton")
    with (
        mock.patch.object(when, "_on_gpu", _yes),
        mock.patch.object(when, "_works", _yes),
        mock.patch.object(when, "_WANTED", True),
        plain_torch(),
    ):
        yield


@contextmanager
def operators():
    """Nothing but torch's operators, their oracle."""
    with mock.patch.object(when, "_on_gpu", _no), plain_torch():
        yield


def random_graph(nodes, edges, seed=0, last=None):
    """Any degrees, some edges twice; nodes from ``last`` on have no edge."""
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.randint(last or nodes, (2, edges), generator=generator)
    return Neighbors.from_edge_index(pairs.to(DEVICE), nodes)


def knn_clouds(clouds, points, k):
    generator = torch.Generator().manual_seed(points)
    return Neighbors.from_table(knn(torch.randn(clouds, points, 3, generator=generator), k).to(DEVICE))


def random(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).to(DEVICE, dtype)


def compile_for_gpu(cache, capability, code):
    """Run code that starts kernels, which are compiled to machine code and not run: that needs no GPU.

    Args:
        cache: Folder for what Triton keeps.
        capability: Of the GPU, times ten.
        code: Within ``kernels()``; all tensors are on the CPU, and results are whatever memory held.

    Returns:
        Names of the kernels that were started, in order.
    """
    pytest.importorskip("triton.backends.nvidia")
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    program = _COMPILE + textwrap.indent(textwrap.dedent(code), "    ") + "print(*started)"
    done = subprocess.run(
        [sys.executable, "-c", program, str(capability)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


_COMPILE = """
import sys
from types import SimpleNamespace
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction
from triton_kernels import kernels, random, random_graph

target, started = GPUTarget("cuda", int(sys.argv[1]), 32), []
driver.set_active(SimpleNamespace(
    get_current_device=lambda: 0, get_current_stream=lambda device: 0, get_current_target=lambda: target,
    get_active_torch_device=lambda: torch.device("cpu"), is_active=lambda: True,
))

def compile_only(kernel, grid):
    def start(*arguments, **options):
        assert kernel.warmup(*arguments, grid=grid, **options).asm["cubin"]
        started.append(kernel.__name__)
    return start

JITFunction.__getitem__ = compile_only
with kernels():
"""
