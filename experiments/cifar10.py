"""
Train an image classifier on CIFAR-10 or other small images, and say how good it is.

With no arguments it downloads CIFAR-10 and trains MGIC-ResNet-56 (groups of 8, coarsest level of 16) by a
modern recipe, on whatever device there is. The output folder gets the model, the settings, logs and figures,
and pictures: learning curves, confusion matrix, and a gallery of the hardest images. Test images are
classified once, after the last epoch. Defaults depend on the recipe: --recipe paper --help shows the paper's.

    python experiments/cifar10.py
    python experiments/cifar10.py --data cifar10.tar.xz --model resnet56 --output runs/resnet56
    python experiments/cifar10.py --recipe paper --output runs/paper
    python experiments/cifar10.py --eval runs/paper
    torchrun --nproc-per-node 4 experiments/cifar10.py --batch-size 32
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from mgic_geo.datasets import ImageAugment, ImageLoader, Images, Normalization, load_images, split_validation
from mgic_geo.models import list_models
from mgic_geo.training import (
    Evaluation,
    Fitted,
    ImageCard,
    ImageConfig,
    Summary,
    blaming,
    claim,
    evaluation_device,
    judge_images,
    parse_recipe,
    plain_errors,
    plot_curves,
    train_images,
)

WRITTEN = (
    "model.safetensors, summary.json, config.yaml, metrics.csv, the pictures\n"
    "curves.png, confusion.png and gallery.png, and logs for `tensorboard --logdir`"
)

# The modern recipe is that of Config's own defaults.
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "recipe": "paper",
        "epochs": 180,
        "optimizer": "sgd",
        "nesterov": False,
        "lr": 0.001,
        "weight_decay": 1e-4,
        "schedule": "steps",
        "warmup": 0.0,
        "label_smoothing": 0.0,
        "cutout": 0,
        "output": Path("runs/cifar10-paper"),
    }
}


@dataclass(kw_only=True)
class Config(ImageConfig):
    """Flags of this experiment."""

    data: str = "cifar10"
    """cifar10 or cifar100 (downloaded), or a path: a folder or archive (.zip, .tar.xz, …) of images laid out
    as NAME/{train,test}/CLASS/*.jpg, all of one size. Decoded images are kept in ./data, or where the
    environment variable MGIC_DATA says."""
    recipe: Literal["modern", "paper"] = "modern"
    """Decides the defaults of the other flags. modern: SGD with Nesterov's momentum, cosine schedule with
    warm-up, label smoothing and cutout. paper: plain SGD for 180 epochs in batches of 128, the learning rate
    divided by 10 every 30 epochs, flips and crops; its start, 0.001, is what the paper says, and is low."""
    output: Path = Path("runs/cifar10")
    """Folder for everything the run writes."""
    model: str = "mgic_resnet56_g8_c16"
    """mgic_resnet56_g8_c16, mgic_resnet56_g16_c16, …_g16_c32 and …_g16_c64 are the paper's; resnet56 is their
    baseline; mgic_resnet56 takes --group-size and --coarse-size. ResNet-50 and MobileNetV3 go too."""
    epochs: int = 100
    """Passes over the training set."""
    batch_size: int = 128
    """Images per step, on each device."""

    padding: int = 4
    """Augmentation: crop each image at random from itself with this many black pixels around; 0 for none."""
    flip: bool = True
    """Augmentation: mirror half of the images."""
    cutout: int = 8
    """Augmentation: paint over a square of this side, in pixels; 0 for none."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        return super().problems() + [
            f"--{name} is {getattr(self, name)}; give 0 (none) or more pixels"
            for name in ("padding", "cutout")
            if getattr(self, name) < 0
        ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the experiment with the arguments ``argv``, or those of the command line."""
    config = parse_recipe(Config, RECIPES, argv, (__doc__ or "").strip())
    with plain_errors():
        config.check([name for name in list_models() if "resnet" in name or name.find("mobilenet") in (0, 5)])
        if config.eval is not None:
            evaluate_saved(config, config.eval)
        else:
            train(config)


def load(config: Config) -> tuple[Images, Images]:
    """Return the training and test images."""
    with blaming(f"--data {config.data}"):
        return load_images(config.data, skip_corrupt=config.skip_corrupt)


def train(config: Config) -> None:
    """Train, evaluate the last epoch on the test images, and write the results."""
    claim(config)
    (images, test), val = load(config), None
    if config.val_fraction:
        with blaming("--val-fraction"):
            images, val = split_validation(images, config.val_fraction, config.seed)

    colours = Normalization.of(images.images)
    height, width = images.images.shape[2:]
    card = ImageCard(
        config.model, config.model_kwargs(), images.classes, colours.mean, colours.std, (height, width)
    )
    loader = partial(
        ImageLoader,
        batch_size=config.batch_size,
        normalization=colours,
        channels_last=config.channels_last,
        seed=config.seed,
    )
    augment = ImageAugment(config.padding, config.flip, cutout=config.cutout)
    fitted = train_images(
        config,
        card,
        len(images),
        partial(loader, images, train=True, augment=augment),
        partial(loader, val) if val is not None else None,
    )
    if fitted is None:
        return
    result, summary = judge(config, config.output, test, fitted)
    summary.save(config.output / "summary.json")
    plot_curves(config.output / "curves.png", fitted.rows, result.accuracy)
    print(f"\n{summary.table()}\n\nWritten to {config.output}: {WRITTEN}")


def evaluate_saved(config: Config, path: Path) -> None:
    """Evaluate the saved model at ``path`` on the test images."""
    _, summary = judge(config, path, load(config)[1], Fitted((), evaluation_device(config)))
    print(f"{summary.table()}\n\nconfusion.png and gallery.png are beside the model")


def judge(config: Config, path: Path, images: Images, fitted: Fitted) -> tuple[Evaluation, Summary]:
    """Evaluate the saved model at ``path`` and draw its confusions and hardest images beside it."""

    def batches(card: ImageCard) -> partial[ImageLoader]:
        return partial(ImageLoader, images, 256, normalization=card.normalization)

    def picture(_: ImageCard, index: int) -> torch.Tensor:
        return images.images[index]

    return judge_images(config, path, images.classes, batches, picture, fitted)


if __name__ == "__main__":
    main()
