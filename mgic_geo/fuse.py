"""Models for inference: normalisations folded into the maps ahead of them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from torch import nn

from mgic_geo.core import MGICBlock
from mgic_geo.core.fold import fold
from mgic_geo.graph.cycle_folded import FoldedCycle, fold_cycle
from mgic_geo.graph.edge_conv import EdgeConv
from mgic_geo.graph.edge_conv_folded import fold_edge_conv
from mgic_geo.graph.graph_block import GraphBlock
from mgic_geo.image.blocks import BasicBlock2d, Bottleneck2d
from mgic_geo.models.resnet import ResNet

__all__ = ["InferenceOnly", "fuse"]

_GUARD = "inference_only"


def fuse(model: nn.Module) -> nn.Module:
    """A copy of ``model`` for inference that computes the same with less.

    Batch normalisations with running statistics become part of the map ahead of them: of convolutions and
    linear maps in a row in ``nn.Sequential``, of all blocks and networks of this package, of the prolongation
    that a correction's normalisation follows, of EdgeConv. Where the levels of a cycle are EdgeConv, the last
    restriction becomes part of the coarsest layer's maps. All else stays as it is: other normalisations,
    layers of PyG, modules that are used twice or have hooks. A linear layer ahead of ``BatchNorm1d`` in a
    ``Sequential`` is taken to map rows (N, C).

    The copy's outputs are those of ``model.eval()`` to rounding. Its parameters take no gradients, and its
    ``train()`` raises: keep ``model`` to train on, and its ``state_dict`` to save.

    Args:
        model: Any model; left as it is.

    Raises:
        ValueError: If a part of the model has not seen its first input yet, by which its width is settled.
    """
    lazy = [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]
    if lazy:
        raise ValueError(f"the width of {lazy[0]} is not settled; call the model on an input, then fuse it")
    fused = copy.deepcopy(getattr(model, "_orig_mod", model)).eval()  # what torch.compile wraps
    if type(fused) is EdgeConv:
        fused = fold_edge_conv(fused) or fused
    uses = Counter(module for _, module in fused.named_modules(remove_duplicate=False))
    shared = Counter(p for module in uses for p in module.parameters(recurse=False))
    alone = {
        m for m, n in uses.items() if n == 1 and all(shared[p] == 1 for p in m.parameters(recurse=False))
    }
    alone -= {module for module in uses if _hooked(module)}
    for module in list(fused.modules()):
        for layer, owner, name in _pairs(module):
            norm = owner.get_submodule(name)
            if {layer, norm} <= alone and fold(layer, norm):
                owner.set_submodule(name, nn.Identity())
        _fold_edge_convs(module, alone)
    inside = {module.cycle for module in fused.modules() if type(module) is FoldedCycle}  # fused before
    for name, module in list(fused.named_modules()):
        if name and type(module) is MGICBlock and module in alone - inside:
            merged = None if any(map(_hooked, module.modules())) else fold_cycle(module)
            if merged is not None:
                fused.set_submodule(name, merged)
    fused._modules = {_GUARD: InferenceOnly(), **fused._modules}  # first, so that it is asked first
    return fused.requires_grad_(False)


class InferenceOnly(nn.Module):
    """Sits in a fused model and keeps it from being trained; what it is called on passes through."""

    def train(self, mode: bool = True) -> InferenceOnly:
        """Raise ``RuntimeError``, unless ``mode`` is False."""
        if mode:
            raise RuntimeError(
                "a fused model has no normalisations left to train with; train the model it was made of, "
                "and fuse that again"
            )
        return super().train(mode)

    def forward(self, x: Any) -> Any:
        """Return ``x``."""
        return x


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, nn.Module, str]]:
    """Maps of a module and the normalisations that alone read their outputs, as owner and name."""
    if type(module) is nn.Sequential:
        for (_, layer), (name, _) in pairwise(module.named_children()):
            yield layer, module, name
    elif type(module) is ResNet:
        yield module.conv1, module, "bn1"
    elif isinstance(module, BasicBlock2d | Bottleneck2d) and type(module) in (BasicBlock2d, Bottleneck2d):
        ahead = 1 if module.preactivation else 0  # then the first normalisation follows the sum of a block
        for i in range(1, module.depth + 1 - ahead):
            yield module.get_submodule(f"conv{i}"), module, f"bn{i + ahead}"
    elif type(module) is MGICBlock:
        for j in range(module.hierarchy.coarsenings):
            yield module.prolongations[j].get_submodule("map"), module.norms, str(j)


def _fold_edge_convs(module: nn.Module, alone: set[nn.Module]) -> None:
    """Replace the EdgeConvs of a module; in a level's block, with the normalisation behind them."""
    for name, conv in list(module.named_children()):
        if type(conv) is not EdgeConv or conv not in alone or conv.lin not in alone:
            continue
        after: nn.Module = nn.Identity()
        if type(module) is GraphBlock and (not module.act_first or isinstance(module.act, nn.Identity)):
            after = module.norm  # else an activation stands between
        folded = fold_edge_conv(conv, after) if after in alone else None
        if folded is not None:
            module.norm = nn.Identity()
        folded = folded or fold_edge_conv(conv)
        if folded is not None:
            module.set_submodule(name, folded)
