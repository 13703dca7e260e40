"""Residual blocks of image networks, recognised by what they compute.

A block is taken for a basic block, a bottleneck or an inverted residual if our dense block of that kind,
built with its sizes, holds tensors of the same shapes and, with the same random weights, gives the same
output in evaluation and in training, draws as many random numbers, leaves the same statistics and keeps
nothing else of a call. So neither the library a block comes from nor its name matters, and a block that does
something else, or more, is never mistaken: its layers are replaced one by one.
"""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from mgic_geo.convert.forms import Build, Sizes, copies, match_placement
from mgic_geo.image.blocks import BasicBlock2d, Bottleneck2d, InvertedResidual2d, squeeze_width
from mgic_geo.image.conv import initialize
from mgic_geo.image.mgic_blocks import MGICBasicBlock2d, MGICBottleneck2d, MGICInvertedResidual2d

__all__ = ["block_form"]


def block_form(block: nn.Module) -> Build | None:
    """How to build the MGIC form of a residual block; None if it is none that we know."""
    if len(inspect.signature(block.forward).parameters) != 1:
        return None  # it may be given more than an image
    if len({p.dtype for p in block.parameters() if p.is_floating_point()}) > 1:
        return None  # one by one, the layers around norms in float32, say, keep theirs
    return _residual(block) or _inverted(block)


def _residual(block: nn.Module) -> Build | None:
    """Basic blocks and bottlenecks, whose parts torchvision and timm call conv1, bn1, and so on."""
    convs = [getattr(block, f"conv{i}", None) for i in (1, 2, 3)]
    found = [conv for conv in convs if isinstance(conv, nn.Conv2d)]
    norm = _norm_like(getattr(block, "bn1", None))
    act = next(
        (m for n in ("relu", "act", "act1") if isinstance(m := getattr(block, n, None), nn.Module)), None
    )
    if len(found) < 2 or any(conv.groups > 1 for conv in found) or norm is None or act is None:
        return None
    dense, form = ((BasicBlock2d, MGICBasicBlock2d), (Bottleneck2d, MGICBottleneck2d))[len(found) - 2]
    width_in, planes = found[0].in_channels, found[0].out_channels
    stride, dilation = max(conv.stride[0] for conv in found), found[1].dilation[0]
    downsample = getattr(block, "downsample", None)

    def twin() -> nn.Module:
        return dense(width_in, planes, stride, copy.deepcopy(downsample), 1, dilation, norm, copies(act))

    if not _computes_the_same(block, twin, width_in, apart="downsample"):
        return None

    def build(sizes: Sizes) -> nn.Module | str:
        if reason := sizes.too_narrow(planes):
            return reason
        new = form(
            width_in, planes, stride, dilation=dilation, norm_layer=norm, act_layer=copies(act), **vars(sizes)
        )
        initialize(new)
        return match_placement(new, block)

    return build


def _inverted(block: nn.Module) -> Build | None:
    """Inverted residuals: [1×1 that widens,] depth-wise, [squeeze-excite,] 1×1 that narrows."""
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    depthwise = [conv for conv in convs if conv.groups == conv.in_channels > 1]
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    acts = [m for m in _leaves(block) if not isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Identity)]
    if isinstance(block, nn.Sequential) or not 2 <= len(convs) <= 5 or len(depthwise) != 1:
        return None
    norm = _norm_like(norms[0]) if norms else None
    if norm is None or not acts:
        return None
    middle = depthwise[0]
    width_in, expanded, width_out = convs[0].in_channels, middle.in_channels, convs[-1].out_channels
    kernel, stride, dilation = middle.kernel_size[0], middle.stride[0], middle.dilation[0]
    behind = convs[convs.index(middle) + 1 :]
    squeeze = behind[0].out_channels if len(behind) == 3 else 0
    if squeeze not in (0, squeeze_width(expanded)) or kernel % 2 == 0:
        return None
    act = copies(acts[0])

    def twin() -> nn.Module:
        return InvertedResidual2d(
            width_in, expanded, width_out, kernel, stride, squeeze, 1, dilation, norm, act
        )

    if not _computes_the_same(block, twin, width_in):
        return None

    def build(sizes: Sizes) -> nn.Module | str:
        if reason := sizes.too_narrow(width_out):
            return reason
        new = MGICInvertedResidual2d(
            width_in, expanded, width_out, kernel, stride, bool(squeeze), dilation, norm, act, **vars(sizes)
        )
        initialize(new)
        return match_placement(new, block)

    return build


def _computes_the_same(block: nn.Module, twin: Callable[[], nn.Module], width: int, apart: str = "-") -> bool:
    """Whether a block and its dense twin agree on random weights and a random image, in both modes.

    Parts without weights must be in the twin, too, but for the pooling of squeeze-excite, which the twin does
    without a part of its own. What lies under the name ``apart`` is the block's own in both.
    """
    with torch.random.fork_rng(devices=[]):
        other = twin()
    theirs, ours = ({type(m) for m in _leaves(side, apart)} for side in (block, other))
    if not theirs - {nn.AdaptiveAvgPool2d} <= ours:
        return False
    original = copy.deepcopy(block)
    sides = [_alone(side.to_empty(device="cpu").float()) for side in (original, other)]
    tensors = [_tensors(side) for side in sides]
    if [(t.shape, t.dtype) for t in tensors[0]] != [(t.shape, t.dtype) for t in tensors[1]]:
        return False
    generator = torch.Generator().manual_seed(0)
    for drawn, copied in zip(*tensors, strict=True):
        if not drawn.is_floating_point():  # numbers of batches
            drawn.zero_()
        else:
            drawn.uniform_(0.5, 1.5, generator=generator)
        if drawn.dim() > 1:  # kernels of either sign, scaled to keep the size of the features
            drawn.sub_(1.0).mul_(3.0 / drawn[0].numel() ** 0.5)
        copied.copy_(drawn)
    image = torch.randn(2, width, 9, 9, generator=generator)
    try:
        # Training comes last: it moves the running statistics, which both sides must move alike.
        return all(_agree([_run(side.train(mode), image) for side in sides]) for mode in (False, True))
    except (RuntimeError, TypeError, ValueError):
        return False  # it takes something else than an image


@torch.no_grad()
def _run(block: nn.Module, image: Tensor) -> tuple[list[Tensor], list[Any]]:
    """The output and the tensors behind a call; where it leaves generators, found seeded, and attributes."""
    python, kept = random.getstate(), _attributes(block)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # not torch.manual_seed, which seeds other devices, too
        random.seed(0)
        try:
            values = [cast(Tensor, block(image)), *_tensors(block)]
            same = _attributes(block)
            changed = kept.keys() != same.keys() or any(kept[key] is not same[key] for key in kept)
            return values, [torch.get_rng_state().tolist(), random.getstate(), changed]
        finally:
            random.setstate(python)


def _tensors(block: nn.Module) -> list[Tensor]:
    """Parameters and buffers, those too that are not saved; shared ones wherever they stand."""
    return [
        tensor.detach()
        for named in (block.named_parameters, block.named_buffers)
        for _, tensor in named(remove_duplicate=False)
    ]


def _attributes(block: nn.Module) -> dict[tuple[int, str], Any]:
    """What the parts of a block keep beside tensors and parts."""
    return {
        (index, name): value
        for index, module in enumerate(block.modules())
        for name, value in vars(module).items()
    }


def _agree(runs: list[tuple[list[Tensor], list[Any]]]) -> bool:
    """Whether two blocks did the same. One that drew random numbers may have dropped nothing by luck."""
    (mine, drawn), (theirs, drawn_too) = runs
    return drawn == drawn_too and all(
        a.shape == b.shape and bool((a - b).float().norm() <= 1e-4 * b.float().norm())
        for a, b in zip(mine, theirs, strict=True)
    )


def _alone(block: nn.Module) -> nn.Module:
    """``block`` with plain batch normalisations for synchronised ones, which need other processes."""
    for name, norm in list(block.named_modules()):
        if name and isinstance(norm, nn.SyncBatchNorm):
            plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum)
            block.set_submodule(name, plain)
    return block


def _leaves(block: nn.Module, apart: str = "-") -> list[nn.Module]:
    """The innermost parts that do something, in order."""
    return [
        module
        for name, module in block.named_modules()
        if not any(module.children()) and not isinstance(module, nn.Identity) and name.split(".")[0] != apart
    ]


def _norm_like(norm: nn.Module | None) -> Callable[..., nn.Module] | None:
    """A factory of batch normalisations with the settings of ``norm``; None if it is something else."""
    if not isinstance(norm, nn.BatchNorm2d | nn.SyncBatchNorm):
        return None
    kind = nn.SyncBatchNorm if isinstance(norm, nn.SyncBatchNorm) else nn.BatchNorm2d
    if not (norm.affine and norm.track_running_stats):
        return None
    return partial(kind, eps=norm.eps, momentum=norm.momentum)
