"""Models for inference: normalisations folded into the maps ahead of them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from mgic_geo.core import GroupedLinear, MGICBlock
from mgic_geo.core.fold import fold
from mgic_geo.core.observed import has_hooks
from mgic_geo.graph.cycle_folded import FoldedCycle, fold_cycle
from mgic_geo.graph.edge_conv import EdgeConv
from mgic_geo.graph.edge_conv_folded import fold_edge_conv
from mgic_geo.graph.graph_block import GraphBlock
from mgic_geo.image.blocks import BasicBlock2d, Bottleneck2d
from mgic_geo.models.resnet import ResNet

__all__ = ["FoldedNorm", "fuse"]


def fuse(model: nn.Module) -> nn.Module:
    """A copy of ``model`` for inference that computes the same with less.

    Batch normalisations with running statistics become part of the map ahead of them: of convolutions and
    linear maps in a row in ``nn.Sequential``, of all blocks and networks of this package, of the prolongation
    that a correction's normalisation follows, of EdgeConv. Where the levels of a cycle are EdgeConv, the last
    restriction becomes part of the coarsest layer's maps. All else stays as it is: other normalisations,
    layers of PyG, modules that are used twice, have hooks or had their ``forward`` replaced.

    The copy's outputs are those of ``model.eval()`` to rounding, and its parts keep names and places. Where
    the map and the normalisation of a ``Sequential`` have their channels in one dimension for some inputs
    only (a linear map of rows (N, C); of (N, L, C) it is not the channels that ``BatchNorm1d`` normalises),
    the copy raises ``ValueError`` on others. Its parameters take no gradients, and its ``train()`` raises
    ``RuntimeError``: keep ``model`` to train on, and its ``state_dict`` to save.

    Args:
        model: Any model; left as it is.

    Raises:
        ValueError: If a part of the model has not seen its first input yet, by which its width is settled.
    """
    lazy = [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]
    if lazy:
        raise ValueError(f"the width of {lazy[0]} is not settled; call the model on an input, then fuse it")
    fused = copy.deepcopy(getattr(model, "_orig_mod", model)).eval()  # what torch.compile wraps
    if type(fused) is EdgeConv and not has_hooks(*fused.modules(), backward=False):
        fused = fold_edge_conv(fused) or fused
    uses = Counter(module for _, module in fused.named_modules(remove_duplicate=False))
    shared = Counter(p for module in uses for p in module.parameters(recurse=False))
    alone = {
        m for m, n in uses.items() if n == 1 and all(shared[p] == 1 for p in m.parameters(recurse=False))
    }
    alone -= {module for module in uses if has_hooks(module, backward=False)}
    for module in list(fused.modules()):
        if "forward" in vars(module):
            continue  # it may do anything with its parts
        for layer, owner, name in _pairs(module):
            norm = owner.get_submodule(name)
            if {layer, norm} <= alone and fold(layer, norm):
                owner.set_submodule(name, FoldedNorm(layer) if owner is module else nn.Identity())
        _fold_edge_convs(module, alone)
    inside = {module.cycle for module in fused.modules() if type(module) is FoldedCycle}  # fused before
    for name, module in list(fused.named_modules()):
        if name and type(module) is MGICBlock and module in alone - inside:
            merged = None if has_hooks(*module.modules(), backward=False) else fold_cycle(module)
            if merged is not None:
                fused.set_submodule(name, merged)
    # An attribute, for a part of the model would move those of a Sequential.
    fused.__dict__["train"] = partial(_train, fused)
    return fused.requires_grad_(False)


def _train(fused: nn.Module, mode: bool = True) -> nn.Module:
    """What ``train`` is to a fused model: raises ``RuntimeError``, unless ``mode`` is False."""
    if mode:
        raise RuntimeError(
            "a fused model has no normalisations left to train with; train the model it was made of, "
            "and fuse that again"
        )
    return type(fused).train(fused, mode)


class FoldedNorm(nn.Module):
    """Stands in a ``Sequential`` where a normalisation was, and lets pass what that took the channels of.

    Args:
        layer: The map it is folded into.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.dim: int | None = None  # any, for channels are in dimension 1 there as here
        if isinstance(layer, nn.Linear) or (isinstance(layer, GroupedLinear) and layer.channel_dim == -1):
            self.dim = 2
        elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            self.dim = 2 + len(layer.kernel_size)
        self.layer = type(layer).__name__

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``.

        Raises:
            ValueError: If the normalisation would have taken another dimension for the channels.
        """
        if self.dim not in (None, x.dim()):
            raise ValueError(
                f"a normalisation was folded into the {self.layer} ahead of it for {self.dim} dimensions, "
                f"with the channels of both in dimension 1, got shape {tuple(x.shape)}; change the input's, "
                "or do not fuse this model"
            )
        return x

    def extra_repr(self) -> str:
        """The map."""
        return f"into {self.layer}"


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, nn.Module, str]]:
    """Maps of a module and the normalisations that alone read their outputs, as owner and name."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
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
            if not has_hooks(prolong := module.prolongations[j], backward=False):
                yield prolong.get_submodule("map"), module.norms, str(j)


def _fold_edge_convs(module: nn.Module, alone: set[nn.Module]) -> None:
    """Replace the EdgeConvs of a module; in a level's block, with the normalisation behind them."""
    for name, conv in list(module.named_children()):
        if type(conv) is not EdgeConv or not {conv, conv.lin} <= alone:
            continue
        if has_hooks(*conv.modules(), backward=False):
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
