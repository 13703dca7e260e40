"""Our Triton kernels in tests: on a GPU where there is one, else interpreted on the CPU."""

import json
import os
import subprocess
import sys
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


def compile_for_gpu(cache, capability, module, variants, types):
    """Compile kernels to machine code, which needs no GPU, in a process where they are not interpreted.

    Args:
        cache: Folder for what Triton keeps.
        capability: Of the GPU, times ten.
        module: Of ``mgic_geo.graph.gpu``.
        variants: Pairs of a kernel's name and its constants.
        types: Of arguments by name; all others are integers.
    """
    pytest.importorskip("triton.backends.nvidia")
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    asked = json.dumps([capability, f"mgic_geo.graph.gpu.{module}", variants, types])
    done = subprocess.run(
        [sys.executable, "-c", _COMPILE, asked], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [name for name, _ in variants]


_COMPILE = """
import importlib, json, sys
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

capability, module, variants, types = json.loads(sys.argv[1])
for name, constants in variants:
    kernel = getattr(importlib.import_module(module), name)
    if "ACC" in constants:
        constants["ACC"] = {"fp32": tl.float32, "fp64": tl.float64}[constants["ACC"]]
    names = [parameter.name for parameter in kernel.params]
    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in names}
    source = ASTSource(kernel, signature, constexprs=constants)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4})
    assert made.asm["cubin"]
    print(name)
"""
