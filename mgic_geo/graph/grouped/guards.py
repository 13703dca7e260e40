"""What keeps channel groups apart: aggregations and activations of every channel by itself, plain outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn.resolver import activation_resolver

__all__ = ["channelwise", "only_features", "pointwise"]

_CHANNELWISE = (
    "add", "sum", "mean", "max", "min", "mul", "var", "std", "softmax", "softmax_sg", "powermean", "power",
)  # fmt: skip
_FUNCTIONS = (
    torch.relu, torch.tanh, torch.sigmoid, F.relu, F.leaky_relu, F.elu, F.selu, F.gelu, F.silu, F.softplus,
    F.tanh, F.sigmoid,
)  # fmt: skip
_MODULES = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Softsign, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid,
)  # fmt: skip


def only_features(out: Any) -> Any:
    """What a layer in groups returned, if these are features: a tensor, a dictionary of them, or None.

    Raises:
        ValueError: If it is more, such as attention weights.
    """
    if out is None or isinstance(out, (Tensor, Mapping)):
        return out
    raise ValueError(
        f"a layer in groups returns features, got {type(out).__name__}; leave out what asks for more, such "
        "as return_attention_weights"
    )


def channelwise(aggr: Any) -> bool:
    """Whether an aggregation treats every channel by itself; None is a layer's default, and they all do."""
    return aggr is None or aggr in _CHANNELWISE


def pointwise(act: Any) -> bool:
    """Whether an activation is known to treat every channel by itself; None is a layer's default, or none."""
    if act is None or act in _FUNCTIONS:
        return True
    return isinstance(activation_resolver(act) if isinstance(act, str) else act, _MODULES)
