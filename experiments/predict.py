"""Classify meshes, point clouds or images with a trained model, or segment images.

The model decides which. Meshes (.off .obj .ply .stl) are sampled by area, as in training. Clouds are .npy or
.xyz files whose rows begin with x, y, z, or .ply files without faces. The up axis is z, as in ModelNet.
Images (.jpg .png …) may have any size. Of one that is segmented the output folder gets NAME-mask.png, whose
grey values are the numbers of the classes, and NAME-overlay.png, with the classes' colours laid over it.
Where a file cannot be used, the error names it, the others go through all the same, and the exit status is 1.

    python experiments/predict.py --model runs/modelnet10 chair.off scan.npy
    python experiments/predict.py --model mgic_dgcnn_modelnet10 chair.off  # comes with the package
    python experiments/predict.py --model runs/cifar10 photo.jpg
    python experiments/predict.py --model runs/segmentation --output masks street.png
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor, nn

from mgic_geo.datasets import palette_of, read_image, read_points
from mgic_geo.files import replacing
from mgic_geo.model_file import ImageCard, ModelCard, kind_of, load_model
from mgic_geo.models import LRASPP
from mgic_geo.prediction import classify_image, segment_image
from mgic_geo.text_table import aligned
from mgic_geo.training.command_line import command_line
from mgic_geo.training.config import Flags
from mgic_geo.training.errors import UsageError, blaming, check_target, plain_errors
from mgic_geo.training.segmentation.plots import laid_over

CLASSIFIED = "file", "class", "confidence", "second choice"
SEGMENTED = "file", "classes, by their share of the pixels"

Row = tuple[str, ...]


@dataclass(kw_only=True)
class Config(Flags):
    """Flags of this script."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Meshes, clouds or images."""
    model: Path = Path("runs/modelnet10")
    """A run's folder, its model.safetensors, or a name of mgic_geo.list_pretrained()."""
    output: Path = Path("runs/predictions")
    """Folder for the masks and pictures of a segmenter."""
    seed: int = 0
    """Decides which points are sampled from a mesh or drawn from a larger cloud."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems() + self.at_least(seed=0)
        if not self.files:
            found.append("give the files to look at; --help says which formats are read")
        return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script with the arguments ``argv``, or those of the command line."""
    config = command_line(Config, argv, __doc__)
    with plain_errors(), blaming("--model"):
        config.validate()
        head, answer = load(config)
    rows, failed = [head], False
    for path in config.files:
        try:
            # A name that is not UTF-8 could not be printed.
            rows.append((os.fsencode(path).decode(errors="replace"), *answer(path)))
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            print(f"error: {path}: {reason}", file=sys.stderr)
            failed = True
    if len(rows) > 1:
        print(aligned(rows, left=len(head)))
        if head == SEGMENTED:
            print(f"\nMasks and overlays are in {config.output}")
    if failed:
        raise SystemExit(1)


def load(config: Config) -> tuple[Row, Callable[[Path], Row]]:
    """Return the head of the table, and what gives the rest of a file's row."""
    kind = kind_of(config.model)
    if kind is ModelCard:
        model, card = load_model(config.model, ModelCard)
        return CLASSIFIED, lambda path: best_two(classify(model, card, path, config.seed), card.classes)
    if kind is ImageCard:
        model, image_card = load_model(config.model, ImageCard)
        if isinstance(model, LRASPP):
            check_target("--output", config.output / "NAME-mask.png")
            return SEGMENTED, Segment(model, image_card, config.output)
        return CLASSIFIED, lambda path: best_two(
            classify_image(model, image_card, read_image(path)), image_card.classes
        )
    raise UsageError(f"the card of {config.model} does not say what its input is like; give a run's folder")


@torch.inference_mode()
def classify(model: nn.Module, card: ModelCard, path: Path, seed: int) -> Tensor:
    """Return the class probabilities (C,) of the mesh or cloud in a file."""
    points = read_points(path, card.points, card.kwargs["k"], np.random.default_rng(seed))
    return model(torch.from_numpy(points)[None])[0].float().softmax(0)


def best_two(probabilities: Tensor, classes: Sequence[str]) -> Row:
    """Return the most probable class, its probability, and the second choice, as text."""
    shares, order = probabilities.topk(2)
    first, second = classes[int(order[0])], classes[int(order[1])]
    return first, f"{float(shares[0]):.1%}", f"{second} {float(shares[1]):.1%}"


class Segment:
    """Writes an image's mask and picture into a folder, and says what is in it."""

    def __init__(self, model: nn.Module, card: ImageCard, folder: Path) -> None:
        self.model, self.card, self.folder = model, card, folder
        self.palette = palette_of(card.classes)
        self.written: dict[str, Path] = {}

    def __call__(self, path: Path) -> Row:
        """Return the classes of an image, the largest first."""
        if (other := self.written.get(path.stem)) is not None:
            raise ValueError(f"its mask would replace that of {other}; give it another --output")
        image = read_image(path)
        mask = segment_image(self.model, self.card, image)
        self.folder.mkdir(parents=True, exist_ok=True)
        pixels, labels = image.permute(1, 2, 0).numpy(), mask.numpy()
        save(self.folder / f"{path.stem}-mask.png", labels)
        save(self.folder / f"{path.stem}-overlay.png", laid_over(pixels, labels, self.palette))
        self.written[path.stem] = path
        shares = mask.flatten().bincount(minlength=len(self.card.classes)) / mask.numel()
        order = shares.argsort(descending=True, stable=True)
        return (", ".join(f"{self.card.classes[i]} {shares[i]:.1%}" for i in order if shares[i] >= 0.0005),)


def save(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG file, whole or not at all."""
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="png")


if __name__ == "__main__":
    main()
