"""Train an image classifier on CIFAR-10 or other small images, and say how good it is.

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
from typing import Literal

from mgic_geo.datasets import ImageAugment, ImageLoader, Images, Normalization, load_images
from mgic_geo.model_file import ImageCard
from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.classification.galleries import plot_images
from mgic_geo.training.classification.task import ClassificationTask
from mgic_geo.training.errors import plain_errors
from mgic_geo.training.image_config import PAPER, ImageConfig, parse_recipe
from mgic_geo.training.task import run_task

# The modern recipe is that of Config's own defaults.
RECIPES = {"paper": PAPER | {"lr": 0.001, "cutout": 0, "output": Path("runs/cifar10-paper")}}


@dataclass(kw_only=True)
class Config(ImageConfig):
    """Flags of this experiment."""

    families = ("resnet", "mobilenet")

    data: str = "cifar10"
    """cifar10 or cifar100 (downloaded), or a path: a folder or archive (.zip, .tar.xz, …) of images laid out
    as NAME/{train,test}/CLASS/*.jpg (or val, if there is no test), all of one size. Decoded images are kept
    in ./data, or where the environment variable MGIC_DATA says."""
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
        return super().problems() + self.at_least(padding=0, cutout=0, hint=" (none)")


class Cifar10(ClassificationTask[Config, Images, ImageCard]):
    """Images of one size, in memory."""

    kind = ImageCard
    samples = "images"

    def load(self, config: Config, saved: ImageCard | None) -> tuple[Images, Images]:
        """Return the training and test images."""
        return load_images(config.data, skip_corrupt=config.skip_corrupt)

    def card(self, config: Config, samples: Images) -> ImageCard:
        """Describe the model, for images of this size in the training images' colours."""
        colours = Normalization.of(samples.images)
        height, width = samples.images.shape[2:]
        return ImageCard(
            config.model, config.model_kwargs(), samples.classes, colours.mean, colours.std, (height, width)
        )

    def loader(self, config: Config, samples: Images, card: ImageCard, train: bool) -> partial[ImageLoader]:
        """Return a maker of loaders: normalised batches, shuffled and augmented for training."""
        return partial(
            ImageLoader,
            samples,
            config.batch_size,
            normalization=card.normalization,
            train=train,
            augment=ImageAugment(config.padding, config.flip, cutout=config.cutout) if train else None,
            channels_last=config.channels_last,
            seed=config.seed,
        )

    def gallery(self, path: Path, samples: Images, card: ImageCard, result: Evaluation) -> None:
        """Draw the hardest images."""
        plot_images(path, lambda index: samples.images[index], samples.name, result)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, judge the last epoch on the test images and write the results; or judge what --eval names."""
    config = parse_recipe(Config, RECIPES, argv, __doc__)
    with plain_errors():
        config.validate()
        run_task(config, Cifar10())


if __name__ == "__main__":
    main()
