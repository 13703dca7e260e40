"""Train an image classifier on ImageNet, or on any folder of class folders, and say how good it is.

Images are read from --data/train/CLASS/*.jpg and --data/val/CLASS/*.jpg. By default MGIC-ResNet-50 (groups of
32, coarsest level of 64) is trained by a modern recipe. The output folder gets the model, the settings, logs
and figures, and pictures: learning curves, confusion matrix, and a gallery of the hardest images. The images
of val are classified once, after the last epoch. Defaults depend on the recipe: --recipe paper --help shows
the paper's.

    torchrun --nproc-per-node 8 experiments/imagenet.py --data /data/imagenet --batch-size 32
    python experiments/imagenet.py --data flowers --size 128 --epochs 20 --output runs/flowers
    python experiments/imagenet.py --data flowers --eval runs/flowers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from torchvision.transforms import v2

from mgic_geo.datasets import (
    IMAGENET,
    FileLoader,
    ImageFiles,
    eval_transform,
    load_image_files,
    train_transform,
)
from mgic_geo.model_file import ImageCard
from mgic_geo.training.classification.evaluation import Evaluation
from mgic_geo.training.classification.galleries import plot_images
from mgic_geo.training.classification.task import ClassificationTask
from mgic_geo.training.errors import plain_errors
from mgic_geo.training.image_config import PAPER, ImageFileConfig, parse_recipe
from mgic_geo.training.task import run_task

# The modern recipe is that of Config's own defaults.
RECIPES = {"paper": PAPER | {"lr": 0.1, "output": Path("runs/imagenet-paper")}}


@dataclass(kw_only=True)
class Config(ImageFileConfig):
    """Flags of this experiment."""

    families = ("resnet50", "mobilenet")

    data: str = "imagenet"
    """The folder: images lie at train/CLASS/*.jpg and val/CLASS/*.jpg (or test, if there is no val) in it, of
    any size and kind. All are read once before the training, to find corrupt ones; what was found is kept in
    ./data, or where the environment variable MGIC_DATA says."""
    recipe: Literal["modern", "paper"] = "modern"
    """Decides the defaults of the other flags. modern: SGD with Nesterov's momentum, cosine schedule with
    warm-up and label smoothing. paper: plain SGD for 180 epochs in batches of 256 over all devices, the
    learning rate 0.1 divided by 10 every 30 epochs, flips and crops."""
    output: Path = Path("runs/imagenet")
    """Folder for everything the run writes."""
    model: str = "mgic_resnet50_g32_c64"
    """mgic_resnet50_g16_c64, …_g32_c64 and …_g64_c64, and mgic_mobilenetv3_large_060, …_100 and …_120 are the
    paper's; resnet50, mobilenetv3_large and mobilenetv3_small are plain; mgic_resnet50,
    mgic_mobilenetv3_large and mgic_mobilenetv3_small take --group-size and --coarse-size."""
    epochs: int = 100
    """Passes over the training set."""
    batch_size: int = 256
    """Images per step, on each device."""
    weight_decay: float | None = 1e-4
    """Weight decay. With adamw, which spares norms and biases, 0.05 is customary."""

    size: int = 224
    """Side of the square that the model sees, in pixels."""
    flip: bool = True
    """Augmentation: mirror half of the images."""
    least_area: float = 0.08
    """Augmentation: crops show this share of the image's area, or more."""
    rand_augment: int | None = None
    """Augmentation: magnitude of RandAugment, 0 … 30, customarily 9; by default off."""
    erase: float = 0.0
    """Augmentation: share of the images of which a rectangle is blackened."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems()
        if self.size < 32:
            found.append(f"--size is {self.size}; give 32 or more pixels")
        if not 0 < self.least_area <= 1:
            found.append(f"--least-area is {self.least_area}; give more than 0, and at most 1")
        if not 0 <= self.erase <= 1:
            found.append(f"--erase is {self.erase}; give 0 (none) … 1")
        if self.rand_augment is not None and not 0 <= self.rand_augment <= 30:
            found.append(f"--rand-augment is {self.rand_augment}; give 0 … 30, or leave it out")
        return found

    def augment(self) -> v2.Transform:
        """Return the augmentation that the switches ask for."""
        return train_transform(
            self.size,
            scale=(self.least_area, 1.0),
            flip=self.flip,
            rand_augment=self.rand_augment,
            erase=self.erase,
        )


class ImageNet(ClassificationTask[Config, ImageFiles, ImageCard]):
    """Images of any size, read from their files."""

    kind = ImageCard
    samples = "images"

    def load(self, config: Config, saved: ImageCard | None) -> tuple[ImageFiles, ...]:
        """Return the images of train and val, or those of val alone to judge a saved model."""
        return load_image_files(
            config.data,
            ("train", "val") if saved is None else ("val",),
            verify=config.verify,
            skip_corrupt=config.skip_corrupt,
            workers=config.workers,
        )

    def card(self, config: Config, samples: ImageFiles) -> ImageCard:
        """Describe the model, for squares of --size pixels in ImageNet's customary colours."""
        colours, size = IMAGENET, (config.size, config.size)
        return ImageCard(
            config.model, config.model_kwargs(), samples.classes, colours.mean, colours.std, size
        )

    def loader(
        self, config: Config, samples: ImageFiles, card: ImageCard, train: bool
    ) -> partial[FileLoader]:
        """Return a maker of loaders: normalised batches, shuffled and augmented for training."""
        return partial(
            FileLoader,
            samples,
            config.batch_size,
            normalization=card.normalization,
            train=train,
            transform=config.augment() if train else eval_transform(card.size[0]),
            channels_last=config.channels_last,
            workers=config.workers,
            seed=config.seed,
        )

    def gallery(self, path: Path, samples: ImageFiles, card: ImageCard, result: Evaluation) -> None:
        """Draw the hardest images, as the model sees them."""
        look = eval_transform(card.size[0])
        plot_images(path, lambda index: look(*samples.read(index))[0], samples.name, result)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, judge the last epoch on the test images and write the results; or judge what --eval names."""
    config = parse_recipe(Config, RECIPES, argv, __doc__)
    with plain_errors():
        config.validate()
        run_task(config, ImageNet())


if __name__ == "__main__":
    main()
