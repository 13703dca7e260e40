"""Residual blocks and image networks beside the dense ones, torchvision's and timm's included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import nn

from mgic_geo import create_model
from mgic_geo.benchmark.comparison import Entry, compare, cuda_entries
from mgic_geo.benchmark.config import Config
from mgic_geo.benchmark.floor import Work, work_of
from mgic_geo.benchmark.peers import installed
from mgic_geo.benchmark.report import Report
from mgic_geo.benchmark.steps import passes, training_step
from mgic_geo.image import BasicBlock2d, MGICBasicBlock2d
from mgic_geo.timing import Step

__all__ = ["BLOCK_BARS", "compare_blocks", "compare_images", "dense_blocks"]

BLOCK_BARS = {256: 3, 1024: 10}
"""By width: how many times faster than the dense block the MGIC block should be."""


def dense_blocks() -> dict[str, Callable[[int], nn.Module]]:
    """What makes a residual block of two 3×3 convolutions: ours first, then those of installed libraries."""
    blocks: dict[str, Callable[[int], nn.Module]] = {"dense block": lambda width: BasicBlock2d(width, width)}
    if installed("torchvision"):
        from torchvision.models.resnet import BasicBlock

        blocks["torchvision BasicBlock"] = lambda width: BasicBlock(width, width)
    if installed("timm"):
        from timm.models.resnet import BasicBlock as TimmBlock

        blocks["timm BasicBlock"] = lambda width: TimmBlock(width, width)
    return blocks


LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}


def compare_blocks(config: Config) -> Iterator[Report]:
    """One residual block, forward and backward, at each width and in both layouts."""
    for width in config.channels:
        for words, layout in LAYOUTS.items():
            shape = f"{config.batch_size} × {config.pixels}×{config.pixels}"
            title = f"Residual block, {width:,} channels, {shape}, {words}"
            yield compare(title, _block_entries(width, layout, config), config)


def _block_entries(width: int, layout: torch.memory_format, config: Config) -> list[Entry]:
    mgic, dense = "MGIC block (16, 32)", "dense block"
    x = torch.randn(config.batch_size, width, config.pixels, config.pixels, device=config.device)
    x = x.to(memory_format=layout).requires_grad_()
    blocks = {mgic: _mgic_block, **dense_blocks()}

    def made(name: str) -> nn.Module:
        return blocks[name](width).to(device=config.device, memory_format=layout)  # type: ignore[call-overload]

    def step(name: str, **kind: bool) -> Step:
        return passes(made(name), x, **kind)

    work, entries = {name: work_of(made(name), x) for name in (mgic, dense)}, []
    for name in blocks:
        bar = BLOCK_BARS.get(width) if name == dense else None
        entries.append(Entry(name, step(name), work.get(name, work[dense]), bar=bar))
    if config.device == "cuda":
        entries += cuda_entries(step, work)
    return entries


def _mgic_block(width: int) -> nn.Module:
    return MGICBasicBlock2d(width, width, group_size=16, coarse_size=32)


def compare_images(config: Config) -> Iterator[Report]:
    """A training step of MGIC-ResNet-56 and ResNet-56 on images of 32×32, in both layouts."""
    images = torch.randn(config.images, 3, 32, 32, device=config.device)
    models = {
        "MGIC-ResNet-56 (8, 16)": partial(create_model, "mgic_resnet56_g8_c16"),
        "ResNet-56": partial(create_model, "resnet56"),
    }
    entries: list[Entry] = []
    work: dict[str, Work] = {}
    for words, layout in LAYOUTS.items():
        x, first = images.to(memory_format=layout), f"MGIC-ResNet-56 (8, 16), {words}"
        for name, build in models.items():
            model = build().to(device=config.device, memory_format=layout)  # type: ignore[call-overload]
            work.setdefault(name, work_of(model, x))
            bar = 1 if name == "ResNet-56" and layout == torch.channels_last else None
            entries.append(Entry(f"{name}, {words}", training_step(model, x), work[name], first, bar))
    yield compare(f"Training step, {config.images} images of 32×32", entries, config)
