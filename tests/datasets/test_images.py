import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgic_geo.datasets import IMAGENET, Images, Normalization, split_validation


def images(count=6, height=4, width=5, classes=("a", "b")):
    generator = torch.Generator().manual_seed(0)
    return Images(
        torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator),
        torch.arange(count) % len(classes),
        tuple(map(str, range(count))),
        classes,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(6, 3, 4, 5)}, r"images must be \(6, 3, H, W\) in uint8, .* in float32"),
        ({"images": torch.zeros(5, 3, 4, 5, dtype=torch.uint8)}, r"got \(5, 3, 4, 5\)"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, r"labels must be \(6,\)"),
        ({"labels": torch.full((6,), 2)}, r"labels must lie in 0 … 1"),
    ],
)
def test_parts_must_fit(change, message):
    parts = {name: getattr(images(), name) for name in ("images", "labels", "names", "classes")}
    with pytest.raises(ValueError, match=message):
        Images(**(parts | change))


def test_validation_is_drawn_class_by_class():
    train = images(40)
    kept, drawn = split_validation(train, 0.25, seed=3)
    assert sorted(kept.names + drawn.names, key=int) == list(train.names)
    assert drawn.labels.bincount().tolist() == [5, 5]
    for part in (kept, drawn):
        where = torch.tensor([int(name) for name in part.names])
        assert torch.equal(part.images, train.images[where])
        assert torch.equal(part.labels, train.labels[where])
    assert split_validation(train, 0.25, seed=3)[1].names == drawn.names
    assert split_validation(train, 0.25, seed=4)[1].names != drawn.names


@settings(deadline=None)
@given(count=st.integers(1, 9), height=st.integers(2, 40), seed=st.integers(0, 9))
def test_statistics_are_those_of_all_pixels(count, height, seed):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, height, 7), dtype=torch.uint8, generator=generator)
    found = Normalization.of(pixels)
    exact = pixels.double() / 255
    assert torch.allclose(torch.tensor(found.mean).double(), exact.mean((0, 2, 3)), atol=1e-7)
    assert torch.allclose(torch.tensor(found.std).double(), exact.std((0, 2, 3), unbiased=False), atol=1e-7)


def test_normalised_images_have_mean_0_and_deviation_1():
    pixels = images(20, 30, 30).images
    normalization = Normalization.of(pixels)
    normal = normalization(pixels)
    assert normal.dtype == torch.float32
    assert normal.mean((0, 2, 3)).abs().max() < 1e-5
    assert (normal.std((0, 2, 3), unbiased=False) - 1).abs().max() < 1e-5
    floats = pixels.float() / 255
    before = floats.clone()
    assert torch.allclose(normalization(floats), normal, atol=1e-6)
    assert torch.equal(floats, before)


def test_imagenet_statistics_against_torchvision():
    from torchvision.transforms.v2 import functional as F

    floats = images().images.float() / 255
    assert torch.allclose(IMAGENET(floats), F.normalize(floats, IMAGENET.mean, IMAGENET.std), atol=1e-6)


def test_statistics_need_pixels_that_differ():
    with pytest.raises(ValueError, match="no image"):
        Normalization.of(torch.zeros(0, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="std above 0"):
        Normalization.of(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
