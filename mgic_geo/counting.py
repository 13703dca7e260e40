"""What operators cost in multiply-adds, and a mode that adds it up while a model runs."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock, get_ident
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mgic_geo.core import Prolongation, Restriction

__all__ = ["ATTENTION", "EDGES", "KNN", "MAPS", "TRANSFERS", "CountingMode"]

_switch = RLock()

MAPS, TRANSFERS, EDGES, KNN, ATTENTION = "maps", "transfers", "edges", "k-NN", "attention"


class CountingMode(TorchDispatchMode):
    """Adds up the multiply-adds of all operators that run inside it.

    torch's own formulas serve dense products and convolutions; those below add what it does not know. To tell
    modules apart, :meth:`watch` them meanwhile.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.modules: Counter[nn.Module] = Counter()
        """Multiply-adds within each module, those of the modules it calls included."""
        self.called: set[nn.Module] = set()
        """All modules that were called."""
        self.kinds: Counter[str] = Counter()
        """Multiply-adds by what they were for."""
        self._running: list[nn.Module] = []
        self._last_mul: Callable[[], Tensor | None] = lambda: None  # output of the last aten::mul

    @contextmanager
    def watch(self) -> Iterator[CountingMode]:
        """Count, and know which modules are running.

        Attention runs operator by operator meanwhile: in evaluation torch has whole layers as one operator,
        where the device has it.
        """
        here = get_ident()  # torch's hooks and its switch are the whole process's

        def enter(module: nn.Module, args: Any) -> None:
            if get_ident() == here:
                self._running.append(module)

        def leave(module: nn.Module, args: Any, out: Any) -> None:
            if get_ident() == here:
                self._running.pop()
                self.called.add(module)

        hooks = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]
        try:
            with _layer_by_layer(), self:
                yield self
        finally:
            for hook in hooks:
                hook.remove()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator and count it, or what it is made of if it has no formula of its own."""
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", None)  # higher-order operators have none
        name = packet._qualified_op_name if packet is not None else ""
        if packet is not None and name not in _FORMULAS and packet not in flop_registry:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if name in _FORMULAS:
            kind, formula = _FORMULAS[name]
            self._add(kind(*args) if callable(kind) else kind, formula(*args))
        elif packet in flop_registry:
            flops = flop_registry[packet](*args, **kwargs, out_val=out)  # two a multiply-add
            self._add(ATTENTION if "attention" in name else MAPS, flops // 2)
        elif name == "aten::mul":
            self._last_mul = weakref.ref(out)
        elif name == "aten::sum" and args[0] is self._last_mul():  # a dot product, as PyG's attention has it
            self._add(ATTENTION, args[0].numel())
        return out

    def _add(self, kind: str, multiply_adds: int) -> None:
        running = set(self._running)
        if kind == MAPS and any(isinstance(module, Restriction | Prolongation) for module in running):
            kind = TRANSFERS
        self.kinds[kind] += multiply_adds
        for module in running:
            self.modules[module] += multiply_adds


@contextmanager
def _layer_by_layer() -> Iterator[None]:
    """Switch attention's whole layers off, one thread at a time, which finds the switch as it was."""
    with _switch:
        whole_layers = mha.get_fastpath_enabled()
        mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            mha.set_fastpath_enabled(whole_layers)


def _is_sparse(x: Tensor) -> bool:
    return x.layout != torch.strided


def _kind_of_product(*factors: Any) -> str:
    return EDGES if any(isinstance(x, Tensor) and _is_sparse(x) for x in factors) else MAPS


def _product(a: Tensor, b: Tensor, *_: Any) -> int:
    """A matrix times a matrix or vector, either of them sparse: one for each pair of values that meet."""
    if _is_sparse(a) and _is_sparse(b):
        inner = [
            torch.bincount(x.to_sparse_coo()._indices()[i], minlength=a.size(1)) for x, i in ((a, 1), (b, 0))
        ]
        return int((inner[0] * inner[1]).sum())
    if _is_sparse(b):
        return a.size(0) * b._nnz()
    return (a._nnz() if _is_sparse(a) else a.numel()) * (b.size(1) if b.dim() > 1 else 1)


def _added_product(_added: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    return _product(a, b)


def _added_batches(_added: Tensor, a: Tensor, b: Tensor, *_: Any) -> int:
    return a.numel() * b.size(-1)


def _gathered(y: Tensor, rowptr: Tensor, col: Tensor, *_: Any) -> int:
    return col.numel() * y.size(1)


def _bags(table: Tensor, rows: Tensor, *_: Any) -> int:
    return rows.numel() * table.size(1)


def _by_index(out: Tensor, dim: int, index: Tensor, values: Tensor, *_: Any) -> int:
    return _values(values)


def _values(values: Tensor, *_: Any) -> int:
    """One a value; integers and one number an edge, a degree say, belong to the graph and cost nothing."""
    return values.numel() if values.dim() > 1 and values.is_floating_point() else 0


def _neighbors(x: Tensor, *_: Any) -> int:
    clouds, points, channels = x.shape
    return clouds * points**2 * (channels + 1)


def _distances(a: Tensor, b: Tensor, *_: Any) -> int:
    return a.numel() * b.size(-2)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> int:
    return math.prod(query.shape[:-1]) * key.size(-2) * (query.size(-1) + value.size(-1))


def _trilinear(a: Tensor, b: Tensor, c: Tensor, *axes: list[int]) -> int:
    """One for each three values that meet; ``axes`` are those that each factor gets."""
    shapes = []
    for factor, new in zip((a, b, c), axes, strict=False):
        shape = list(factor.shape)
        for axis in sorted(new):
            shape.insert(axis, 1)
        shapes.append(shape)
    return math.prod(torch.broadcast_shapes(*shapes))


def _recurrent(x: Tensor, *weights: Tensor) -> int:
    steps = x.numel() // x.size(-1)
    return steps * sum(weight.numel() for weight in weights[:2])


_FORMULAS: dict[str, tuple[str | Callable[..., str], Callable[..., int]]] = {
    "aten::mm": (_kind_of_product, _product),
    "aten::mv": (_kind_of_product, _product),
    "aten::dot": (MAPS, lambda a, b: a.numel()),
    **{
        f"aten::{name}{inplace}": (_kind_of_product, _added_product)
        for name in ("addmm", "addmv")
        for inplace in ("", "_")
    },
    **{f"aten::{name}": (MAPS, _added_batches) for name in ("addbmm", "addbmm_", "baddbmm_")},
    "aten::_sparse_addmm": (_kind_of_product, _added_product),
    "aten::_trilinear": (MAPS, _trilinear),
    "aten::_sparse_mm_reduce_impl": (EDGES, _product),
    "aten::mkldnn_rnn_layer": (MAPS, _recurrent),
    "aten::_scaled_dot_product_flash_attention_for_cpu": (ATTENTION, _attention),
    "aten::_cdist_forward": (KNN, _distances),
    "aten::_euclidean_dist": (KNN, _distances),
    "mgic_geo::knn": (KNN, _neighbors),
    "mgic_geo::knn_backend": (KNN, _neighbors),
    "mgic_geo::neighbor_max": (EDGES, _gathered),
    "mgic_geo::neighbor_max_values": (EDGES, _gathered),
    "mgic_geo::neighbor_sum": (EDGES, _gathered),
    "mgic_geo::propagate": (EDGES, lambda x, source, *_: source.numel() * x.size(1)),
    "aten::_embedding_bag": (EDGES, _bags),
    "aten::_embedding_bag_forward_only": (EDGES, _bags),
    "aten::segment_reduce": (EDGES, _values),
    **{
        f"aten::{name}{inplace}": (EDGES, _by_index)
        for name in ("scatter_add", "scatter_reduce", "index_add", "index_reduce")
        for inplace in ("", "_")
    },
}
"""By operator: the kind of what it does, and its multiply-adds, both from its arguments."""
