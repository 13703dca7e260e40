"""Train a segmenter on CamVid or Cityscapes: a class for each pixel of a road scene, and say how good it is.

By default LR-ASPP on a MGIC-MobileNetV3-Small is trained by a modern recipe, from scratch. The output folder
gets the model, the settings, logs and figures, and pictures: learning curves, the classes' IoU, and a gallery
of the worst images. The images of val are judged once, after the last epoch, whole and in float32. Defaults
depend on the recipe: --recipe paper --help shows the paper's.

    python experiments/segmentation.py --data camvid.zip
    python experiments/segmentation.py --data camvid.zip --model lraspp_mobilenetv3_small --output runs/plain
    python experiments/segmentation.py --data camvid.zip --eval runs/plain
    torchrun --nproc-per-node 8 experiments/segmentation.py --data /data/cityscapes --recipe paper
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from mgic_geo.datasets import (
    IMAGENET,
    Color,
    Normalization,
    SegmentationAugment,
    SegmentedImages,
    check_labels,
    load_segmentation,
)
from mgic_geo.model_file import ImageCard
from mgic_geo.training.data import MakeLoader
from mgic_geo.training.errors import plain_errors
from mgic_geo.training.image_config import PAPER, parse_recipe
from mgic_geo.training.segmentation.config import SegmentationConfig
from mgic_geo.training.segmentation.data import Split, look_at, training_batches, whole_batches
from mgic_geo.training.segmentation.task import SegmentationTask
from mgic_geo.training.task import run_task

# The modern recipe is that of Config's own defaults.
RECIPES = {
    "paper": PAPER
    | {
        "epochs": 480,
        "batch_size": 16,
        "lr": 0.007,
        "schedule": "poly",
        "norm_momentum": None,
        "brightness": 0.0,
        "contrast": 0.0,
        "saturation": 0.0,
        "output": Path("runs/segmentation-paper"),
    }
}


@dataclass(kw_only=True)
class Config(SegmentationConfig):
    """Flags of this experiment."""

    families = ("lraspp",)

    data: str = "CamVid"
    """CamVid: a folder or archive (.zip, .tar.xz, …) of images CamVid/{train,val}/*.jpg or .png with masks
    CamVid/{train,val}annot/*.png, kept in memory; decoded images are kept in ./data, or where the environment
    variable MGIC_DATA says. Cityscapes: the folder that leftImg8bit and gtFine were unpacked into; its files
    are read in each epoch, and --workers and --verify are of these."""
    recipe: Literal["modern", "paper"] = "modern"
    """Decides the defaults of the other flags. modern: AdamW, polynomial schedule with warm-up, changes of
    scale and colour. paper: as DeepLabv3's, plain SGD in batches of 16 over all devices for 480 epochs
    (90,000 steps on Cityscapes), polynomial schedule from 0.007, changes of scale, flips; it began with
    weights from ImageNet, this begins from scratch."""
    output: Path = Path("runs/segmentation")
    """Folder for everything the run writes."""
    model: str = "lraspp_mgic_mobilenetv3_small"
    """lraspp_mgic_mobilenetv3_small and …_large are the paper's, lraspp_mobilenetv3_small and …_large their
    baselines."""
    epochs: int = 100
    """Passes over the training set."""
    batch_size: int = 8
    """Images per step, on each device."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """sgd has momentum 0.9."""
    lr: float | None = None
    """Highest learning rate. By default 0.003 for adamw, 0.05 for sgd; it does not follow the batch size."""
    weight_decay: float | None = None
    """By default 0.01 for adamw (norms and biases are spared), 0.0001 for sgd."""
    schedule: Literal["cosine", "steps", "poly"] = "poly"
    """cosine down to 0; steps: a tenth after every --drop-every epochs; poly: (1 − share done)^0.9."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes."""

    default_lr: ClassVar[dict[str, float]] = {"adamw": 3e-3, "sgd": 0.05}
    default_decay: ClassVar[dict[str, float]] = {"adamw": 0.01, "sgd": 1e-4}

    crop: tuple[int, int] | None = None
    """Augmentation: height and width of the windows that are trained on. By default the whole size of
    CamVid's images, and 768 768 of Cityscapes'. Evaluation always sees whole images."""
    scale_min: float = 0.5
    """Augmentation: images are enlarged by a factor drawn between this …"""
    scale_max: float = 2.0
    """… and this, before the window is cut; 1 and 1 for none."""
    flip: bool = True
    """Augmentation: mirror half of the images."""
    brightness: float = 0.3
    """Augmentation: colours are multiplied by a factor of 1 ± this; 0 for none."""
    contrast: float = 0.3
    """Augmentation: likewise their distance from the image's mean grey."""
    saturation: float = 0.3
    """Augmentation: likewise their distance from the pixel's own grey."""

    def problems(self) -> list[str]:
        """Return what is wrong with the values, each with its remedy."""
        found = super().problems() + self.at_least(brightness=0, contrast=0, saturation=0, hint=" (none)")
        if self.crop is not None and min(self.crop) < 32:
            found.append(f"--crop is {self.crop[0]} {self.crop[1]}; give 32 or more pixels each")
        if not 0 < self.scale_min <= self.scale_max < math.inf:
            found.append(
                f"--scale-min is {self.scale_min} and --scale-max is {self.scale_max}; give more than 0, "
                "and no less for --scale-max, which must be finite"
            )
        return found

    def augment(self, size: tuple[int, int]) -> SegmentationAugment:
        """Return what the switches ask for, with windows of ``size`` unless --crop is given."""
        color = Color(self.brightness, self.contrast, self.saturation)
        return SegmentationAugment(
            self.crop or size,
            (self.scale_min, self.scale_max),
            self.flip,
            color if color != Color() else None,
        )


class Scenes(SegmentationTask[Config]):
    """Images with masks, in memory as CamVid or read from their files as Cityscapes."""

    def load(self, config: Config, saved: ImageCard | None) -> tuple[Split, ...]:
        """Return the images of train and val, or those of val alone to judge a saved model."""
        return load_segmentation(
            config.data,
            ("train", "val") if saved is None else ("val",),
            verify=config.verify,
            skip_corrupt=config.skip_corrupt,
            workers=config.workers,
        )

    def card(self, config: Config, samples: Split) -> ImageCard:
        """Describe the model, in the training images' colours where these are in memory."""
        check_labels(samples)
        height, width = look_at(samples, 0)[0].shape[1:]
        colours = Normalization.of(samples.images) if isinstance(samples, SegmentedImages) else IMAGENET
        return ImageCard(
            config.model, config.model_kwargs(), samples.classes, colours.mean, colours.std, (height, width)
        )

    def loader(self, config: Config, samples: Split, card: ImageCard, train: bool) -> MakeLoader:
        """Return a maker of loaders: windows for training, whole images for judging."""
        if not train:
            return whole_batches(samples, card.normalization, config.workers)
        return training_batches(
            samples,
            config.batch_size,
            card.normalization,
            config.augment(card.size if isinstance(samples, SegmentedImages) else (768, 768)),
            channels_last=config.channels_last,
            workers=config.workers,
            seed=config.seed,
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Train, judge the last epoch on the images of val and write the results; or judge what --eval names."""
    config = parse_recipe(Config, RECIPES, argv, __doc__)
    with plain_errors():
        config.validate()
        run_task(config, Scenes())


if __name__ == "__main__":
    main()
