"""The time that a step cannot undercut on this machine: arithmetic and memory traffic at measured rates."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mgic_geo.complexity import complexity
from mgic_geo.counting import KNN
from mgic_geo.timing import Step, clock_of

__all__ = ["Rates", "Work", "measure_rates", "work_of"]


@dataclass(frozen=True)
class Rates:
    """What the machine reaches: multiply-adds a second in a large product, bytes a second in a large copy."""

    multiply_adds: float
    bytes: float


@dataclass(frozen=True)
class Work:
    """What a step must do.

    Args:
        multiply_adds: Of the forward pass and, where there is one, the backward pass, but of k-NN.
        bytes: Least traffic with memory.
        knn: Multiply-adds of k-NN's distances.
    """

    multiply_adds: int
    bytes: int
    knn: int = 0

    def floor(self, rates: Rates) -> float:
        """Seconds: the larger of the times for the multiply-adds and for the bytes.

        Bytes can tell who may be near (``native/knn_rounded.c``), and are multiplied at four times the rate.
        """
        return max((self.multiply_adds + self.knn / 4) / rates.multiply_adds, self.bytes / rates.bytes)


@functools.cache
def measure_rates(
    device: str, clock: str = "wall", dtype: torch.dtype = torch.float32, size: int | None = None
) -> Rates:
    """The best of several timings, in this process, of square matrix products and of a copy of 16 matrices.

    The product is tried in three sizes, each as such and as a convolution, which another library computes.
    A copy of n bytes counts 2 n, for it reads and writes them. torch's settings (threads, TF32) are left as
    they are.

    Args:
        device: Where.
        clock: See :func:`mgic_geo.timing.clock_of`.
        dtype: Of the product's factors; the copy is one of float32.
        size: Rows of the largest matrices, a multiple of 4: 2,048 on a CPU, 4,096 on a GPU.
    """
    timed = clock_of(device, clock)
    size = size or (4096 if device.startswith("cuda") else 2048)
    source = torch.ones(16, size, size, device=device)
    target = torch.zeros_like(source)
    with torch.no_grad():
        copy = min(timed(lambda: target.copy_(source), 1) for _ in range(8))
        product = min(
            timed(step, parts**3)
            for parts in (1, 2, 4)
            for step in _products(size // parts, device, dtype)
            for _ in range(4)
        )
    return Rates(size**3 / product, 2 * source.numel() * source.element_size() / copy)


def _products(size: int, device: str, dtype: torch.dtype) -> list[Step]:
    """The product of two square matrices, and the same as a 1×1 convolution on pixels."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    pixels = a.view(1, size, 1, size).to(memory_format=torch.channels_last)
    weight = b.view(size, size, 1, 1)
    return [lambda: torch.mm(a, b), lambda: torch.conv2d(pixels, weight)]


def work_of(model: nn.Module, *inputs: Any, backward: bool = True) -> Work:
    """Count the work of one step of a model; runs it twice.

    Multiply-adds are those of :func:`mgic_geo.complexity`, times three with a backward pass, for the
    gradients of both factors; k-NN has none and counts once. Least bytes: inputs read and outputs written
    once; parameters read once, and with a backward pass read again and their gradients written; what autograd
    saves, parameters and inputs aside, written and read once.

    Args:
        model: In the mode in which it is timed.
        *inputs: Of its ``forward``.
        backward: Whether the step has a backward pass.
    """
    count = complexity(model, *inputs)
    knn = count.kinds.get(KNN, 0)
    given = [x for x in tree_leaves(inputs) if isinstance(x, Tensor)]
    parameters = list(model.parameters())
    known = {_address(x) for x in [*given, *parameters]}
    saved: dict[Any, int] = {}

    def save(x: Tensor) -> Tensor:
        if _address(x) not in known:
            saved[_address(x)] = max(saved.get(_address(x), 0), _size(x))
        return x

    with torch.autograd.graph.saved_tensors_hooks(save, lambda x: x), torch.set_grad_enabled(backward):
        outputs = [x for x in tree_leaves(model(*inputs)) if isinstance(x, Tensor)]
    traffic = _sizes(given) + _sizes(outputs) + (3 if backward else 1) * _sizes(parameters)
    return Work((3 if backward else 1) * (count.multiply_adds - knn), traffic + 2 * sum(saved.values()), knn)


def _address(x: Tensor) -> Any:
    """The same for tensors that share memory."""
    return x.untyped_storage().data_ptr() if x.layout == torch.strided else id(x)


def _size(x: Tensor) -> int:
    """Bytes; an expanded tensor holds no more than its memory, a sparse one its values and indices."""
    if x.layout == torch.strided:
        return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())
    if x.layout == torch.sparse_csr:
        return _sizes([x.values(), x.crow_indices(), x.col_indices()])
    x = x.to_sparse_coo().coalesce()
    return _sizes([x.values(), x.indices()])


def _sizes(tensors: Sequence[Tensor]) -> int:
    return sum(map(_size, tensors))
