"""Measure what the coarsest level keeps of a network's features: the paper's section 5.1, Figure 2.

Features of a layer of a trained network are encoded by the restrictions, down to a coarsest level of 8
channels, and decoded by the prolongations: no blocks, no skip connections. The transfers start as averages
and learn to reconstruct the features of some images; the error is measured on others, for several group
sizes. The output folder gets the table (table.md, results.json), the settings and the picture figure2.png.

    python experiments/reconstruction.py --model runs/cifar10
    python experiments/reconstruction.py --torchvision resnet50 --data /data/imagenet
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from mgic_geo import ChannelHierarchy
from mgic_geo.datasets import ImagePool, fit_size, open_images
from mgic_geo.paper.backbones import Backbone, saved_backbone, torchvision_backbone
from mgic_geo.paper.features import find_layer, read_features
from mgic_geo.paper.figure2 import Reconstruction, plot_reconstructions
from mgic_geo.paper.reconstruction import CodeResult, Moments, judge_code, learn_code
from mgic_geo.text_table import padded
from mgic_geo.training.claims import claim_folder
from mgic_geo.training.command_line import command_line
from mgic_geo.training.config import Flags
from mgic_geo.training.errors import UsageError, blaming, plain_errors, write_text

# Table 1: MSE ×10⁻³ by s_g, with s_c = 8 and the 64 channels of ResNet-50's first layer.
PAPER = {32: 11, 16: 13, 8: 17, 4: 24}


@dataclass(kw_only=True)
class Config(Flags):
    """Flags of this experiment."""

    data: str = "cifar10"
    """Images: a folder of files, those of its val or test where it has one; or cifar10, cifar100 or an
    archive, as for cifar10.py, of which the test images count. The network should not have been trained on
    them."""
    output: Path = Path("runs/reconstruction")
    """Folder for everything that is written."""
    model: Path | None = None
    """A network that cifar10.py or imagenet.py trained: the run's folder, or its model.safetensors. By
    default runs/cifar10."""
    torchvision: str | None = None
    """In place of --model: a classifier of torchvision, such as resnet50; its weights are downloaded."""
    weights: Path | None = None
    """A file of --torchvision's weights, .pth or .safetensors, in place of the download."""
    layer: str | None = None
    """Dotted name of the module whose output is encoded. By default the first convolution, or where that has
    fewer than 64 channels the first stage that has them."""
    after: Literal["act", "conv"] = "act"
    """Of a convolution's output: act takes it after the normalisation and activation that follow, as the next
    layer sees it; conv takes it bare, at whatever scale it has."""
    group_sizes: tuple[int, ...] = (32, 16, 8, 4)
    """Channels per group, s_g; those above the layer's width are left out."""
    coarse_size: int = 8
    """Channels of the coarsest level, s_c, at most."""
    images: int = 1024
    """Images to draw from the data."""
    held_out: float = 0.25
    """Share of them on which the error is measured; the transfers learn from the others."""
    steps: int = 3000
    """Steps of Adam, each on all features."""
    lr: float = 0.03
    """Learning rate of the first step; it falls to 0 along a cosine."""
    batch_size: int = 64
    """Images that go through the network at a time."""
    seed: int = 0
    """Decides the images and the start of the transfers."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Where the network runs; auto takes a GPU if there is one."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems()
        found += self.at_least(coarse_size=1, images=2, steps=1, batch_size=1, seed=0)
        if self.model is not None and self.torchvision is not None:
            found.append("--model and --torchvision name two networks; give one of the two")
        if self.weights is not None and self.torchvision is None:
            found.append("--weights are those of --torchvision; name its network with that")
        if not self.group_sizes or min(self.group_sizes) < 2:
            found.append("--group-sizes must be one or more numbers from 2; a channel alone cannot be halved")
        if not 0 < self.held_out < 1:
            found.append(f"--held-out is {self.held_out}; give more than 0, under 1")
        if self.lr <= 0:
            found.append(f"--lr is {self.lr}; give more than 0")
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            found.append("--accelerator gpu, but PyTorch sees no GPU here; use --accelerator cpu")
        return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment with the arguments ``argv``, or those of the command line."""
    config = command_line(Config, argv, __doc__)
    with plain_errors():
        config.validate()
        claim_folder(config.output, config, "results.json")
        run(config)


def run(config: Config) -> None:
    """Read the features, learn the transfers, and write the results."""
    backbone = load_backbone(config)
    device = torch.device("cuda" if config.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
    model = backbone.model.to(device)
    with blaming(f"--data {config.data}"):
        images = open_images(config.data).draw(config.images, config.seed)
        shown = fit_size(images[0], backbone.size)
    with blaming("--layer"):
        example = backbone.normalization(shown[None].to(device))
        layer = find_layer(model, example, config.layer, activated=config.after == "act")
    print(f"{backbone.name} on {config.data}\nlayer: {layer.text}", flush=True)
    hierarchies, notes = plan(config, layer.shape[0])

    def moments(pool: ImagePool) -> Moments:
        batches = pool.batches(config.batch_size, backbone.size)
        inputs = (backbone.normalization(images.to(device)) for images in batches)
        with blaming(f"--data {config.data}"):
            return Moments.of(read_features(model, layer, inputs))

    kept = min(max(1, round(config.held_out * len(images))), len(images) - 1)
    held_out, learning = moments(images.subset(range(kept))), moments(images.subset(range(kept, len(images))))
    results, pictures = [], []
    (features,) = read_features(model, layer, [example])  # of the first held-out image
    features = features[0].double().cpu()
    for hierarchy in hierarchies:
        start, code = learn_code(hierarchy, learning, steps=config.steps, lr=config.lr, seed=config.seed)
        result = judge_code(start, code, learning, held_out)
        results.append(result)
        with torch.no_grad():
            coarsest = code.encode(features)
            pictures.append(Reconstruction(f"$s_g$ = {result.group_size}", coarsest, code.decode(coarsest)))
        if not result.converged:
            notes.append(f"s_g = {result.group_size} has not reached the best code; more --steps may help.")

    notes.insert(
        0,
        f"Errors are of {kept:,} images; the transfers learned from {len(images) - kept:,} others. The mean\n"
        f"variance of a channel is {held_out.variance:.4g}. The best code is the closed-form optimum.",
    )
    paper = (layer.shape[0], config.coarse_size) == (64, 8)
    text = table(results, paper) + "\n\n" + "\n".join(notes)
    record = {
        "network": backbone.name,
        "data": config.data,
        "layer": layer.text,
        "coarse_size": config.coarse_size,
        "images": {"learned_from": len(images) - kept, "held_out": kept},
        "results": [result._asdict() for result in results],
    }
    write_text(config.output / "table.md", text + "\n")
    write_text(config.output / "results.json", json.dumps(record, indent=2) + "\n")
    plot_reconstructions(config.output / "figure2.png", shown, features, pictures)
    print(f"\n{text}\n\nWritten to {config.output}: table.md, results.json, config.yaml and figure2.png")


def load_backbone(config: Config) -> Backbone:
    """Return the network that the flags name."""
    if config.torchvision is None:
        with blaming("--model"):
            return saved_backbone(config.model or Path("runs/cifar10"))
    with blaming(f"--torchvision {config.torchvision}"):
        return torchvision_backbone(config.torchvision, config.weights)


def plan(config: Config, channels: int) -> tuple[list[ChannelHierarchy], list[str]]:
    """Return the hierarchies of the group sizes that fit ``channels``, and notes about the others."""
    if channels <= config.coarse_size:
        raise UsageError(
            f"the layer has {channels} channels, which are not coarsened to --coarse-size "
            f"{config.coarse_size}; choose a smaller one, or another --layer"
        )
    sizes = [size for size in config.group_sizes if size <= channels]
    if not sizes:
        raise UsageError(f"--group-sizes: all are above the layer's {channels} channels; give smaller ones")
    left_out = ", ".join(str(size) for size in config.group_sizes if size > channels)
    notes = [f"Left out, being above the layer's {channels} channels: s_g = {left_out}."] if left_out else []
    return [ChannelHierarchy(channels, size, config.coarse_size) for size in sizes], notes


def table(results: Sequence[CodeResult], paper: bool) -> str:
    """Return the results as aligned Markdown, beside the paper's where its widths are the same."""
    head = ["s_g", "MSE ×10⁻³", "of variance", "best code ×10⁻³", "start ×10⁻³", "transfer parameters"]
    lines = [head + ["paper's MSE ×10⁻³"] * paper]
    for result in results:
        errors = (result.mse, result.mse_of_best_code, result.mse_at_start)
        mse, best, start = (f"{1000 * error:.4g}" for error in errors)
        line = [str(result.group_size), mse, f"{result.mse / result.variance:.1%}", best, start]
        line.append(f"{result.parameters:,}")
        lines.append(line + [f"{PAPER.get(result.group_size, '')}"] * paper)
    head, *rows = padded(lines, left=0)
    rule = ["-" * (len(cell) - 1) + ":" for cell in head]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


if __name__ == "__main__":
    main()
