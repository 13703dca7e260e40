"""Answers to single images, beside what evaluation would have seen."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import v2

from mgic_geo import ImageCard
from mgic_geo.datasets import IMAGENET
from mgic_geo.prediction import as_evaluated, classify_image, segment_image

PLAIN = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def card(size: tuple[int, int], colours: tuple[tuple[float, ...], tuple[float, ...]] = PLAIN) -> ImageCard:
    return ImageCard("none", {}, ("a", "b", "c"), *colours, size)  # type: ignore[arg-type]


def image(height: int, width: int) -> Tensor:
    return torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(0)).byte()


def test_imagenets_images_are_seen_as_is_customary() -> None:
    expected = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224)])
    seen = as_evaluated(card((224, 224), (IMAGENET.mean, IMAGENET.std)), image(300, 420))
    torch.testing.assert_close(seen, expected(image(300, 420)))


def test_other_images_are_seen_whole_if_they_fit() -> None:
    torch.testing.assert_close(as_evaluated(card((24, 32)), image(24, 32)), image(24, 32))
    assert as_evaluated(card((24, 32)), image(100, 61)).shape == (3, 24, 32)


class Mean(nn.Module):
    """Logits: the mean of each normalised colour, of the image or of each pixel."""

    def __init__(self, keep: bool) -> None:
        super().__init__()
        self.keep, self.seen = keep, torch.Size()

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.shape
        return x if self.keep else x.mean((2, 3))


def test_probabilities_are_those_of_the_normalised_image() -> None:
    x = image(24, 32)
    expected = ((x.float() / 255 - 0.5) / 0.25).mean((1, 2)).softmax(0)
    torch.testing.assert_close(classify_image(Mean(False), card((24, 32)), x), expected)


def test_an_image_of_the_cards_size_is_segmented_as_it_is() -> None:
    x, model = image(48, 72), Mean(True)
    labels = segment_image(model, card((48, 72)), x)
    assert model.seen == (1, 3, 48, 72)
    assert labels.dtype == torch.uint8
    torch.testing.assert_close(labels, x.float().argmax(0).byte())


@pytest.mark.parametrize(
    ("height", "width", "seen"),
    [(128, 192, (48, 72)), (24, 36, (48, 72)), (50, 20, (93, 37)), (4, 400, (32, 588)), (400, 4, (588, 32))],
)
def test_other_sizes_are_brought_to_the_cards_area_and_back(
    height: int, width: int, seen: tuple[int, int]
) -> None:
    # Three stripes of one colour each, so that only pixels at their borders can depend on how one resizes.
    stripes = torch.arange(max(height, width)) * 3 // max(height, width)
    truth = stripes.view(-1, 1).expand(-1, width) if height >= width else stripes.expand(height, -1)
    x = (F.one_hot(truth, 3).permute(2, 0, 1) * 200).byte()
    model = Mean(True)
    labels = segment_image(model, card((48, 72)), x)
    assert model.seen == (1, 3, *seen)
    assert labels.shape == (height, width)
    assert (labels != truth).float().mean() <= 0.04
