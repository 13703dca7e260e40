"""A trained model's answers to single images of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mgic_geo.datasets import IMAGENET
from mgic_geo.model_file import ImageCard

LEAST = 32  # pixels of a side that a segmenter sees; the coarsest features are a 32nd of it


def as_evaluated(card: ImageCard, image: Tensor) -> Tensor:
    """Bring an image to a classifier's size, as the images were that it was evaluated on.

    In ImageNet's colours that is the customary way: of 224 pixels after the shorter side became 256. Others,
    such as CIFAR's, were evaluated whole: only what is of another size has its centre cut out.

    Args:
        card: The classifier's.
        image: (3, H, W) uint8.

    Returns:
        (3, h, w) uint8, of the card's size.
    """
    from mgic_geo.datasets import eval_transform, fit_size  # need torchvision, which point clouds do without

    if card.normalization == IMAGENET:
        return eval_transform(card.size[0])(image)
    return fit_size(image, card.size)


@torch.inference_mode()
def classify_image(model: nn.Module, card: ImageCard, image: Tensor) -> Tensor:
    """Return the class probabilities (C,) of one image (3, H, W) uint8."""
    return model(card.normalization(as_evaluated(card, image)[None]))[0].float().softmax(0)


@torch.inference_mode()
def segment_image(model: nn.Module, card: ImageCard, image: Tensor) -> Tensor:
    """Return the class of each pixel of one image.

    An image of another area than those the model was evaluated on is brought to their area, with no side
    under 32 pixels, and the logits back to its own size, both by bilinear interpolation.

    Args:
        model: A segmenter, in evaluation mode.
        card: Its card.
        image: (3, H, W) uint8.

    Returns:
        (H, W) uint8, indices into the card's classes.
    """
    height, width = image.shape[1:]
    factor = (card.size[0] * card.size[1] / (height * width)) ** 0.5
    size = max(LEAST, round(factor * height)), max(LEAST, round(factor * width))
    pixels = image[None]  # as it is, so that an image of val gets the answer it was judged by
    if size != (height, width):
        pixels = F.interpolate(pixels.float() / 255, size, mode="bilinear", antialias=True)
    logits = model(card.normalization(pixels))
    if size != (height, width):
        logits = F.interpolate(logits, (height, width), mode="bilinear")
    return logits[0].argmax(0).byte()
