import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mgic_geo.normalization import IMAGENET, Normalization


def pictures(count=6, height=4, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


@settings(deadline=None)
@given(count=st.integers(1, 9), height=st.integers(2, 40), seed=st.integers(0, 9))
def test_statistics_are_those_of_all_pixels(count, height, seed):
    pixels = pictures(count, height, 7, seed)
    found = Normalization.of(pixels)
    exact = pixels.double() / 255
    assert torch.allclose(torch.tensor(found.mean).double(), exact.mean((0, 2, 3)), atol=1e-7)
    assert torch.allclose(torch.tensor(found.std).double(), exact.std((0, 2, 3), unbiased=False), atol=1e-7)


def test_normalised_images_have_mean_0_and_deviation_1():
    pixels = pictures(20, 30, 30)
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

    floats = pictures().float() / 255
    assert torch.allclose(IMAGENET(floats), F.normalize(floats, IMAGENET.mean, IMAGENET.std), atol=1e-6)


def test_statistics_need_pixels_that_differ():
    with pytest.raises(ValueError, match="no image"):
        Normalization.of(torch.zeros(0, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="std above 0"):
        Normalization.of(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
