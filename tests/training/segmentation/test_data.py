from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import write_image

from mgic_geo.datasets import IMAGENET, SegmentationAugment, SegmentedImages, load_segmentation
from mgic_geo.training.segmentation.data import Split, look_at, training_batches, whole_batches


@pytest.fixture
def in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """Three pairs in Cityscapes' layout, of which the last is of another size."""
    monkeypatch.setenv("MGIC_DATA", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number, height in enumerate((10, 10, 12)):
        key = f"val/ulm/ulm_{number:06d}_000019"
        pixels = rng.integers(0, 256, (height, 20, 3), dtype=np.uint8)
        write_image(tmp_path / f"City/leftImg8bit/{key}_leftImg8bit.png", pixels)
        ids = rng.integers(0, 34, (height, 20), dtype=np.uint8)
        write_image(tmp_path / f"City/gtFine/{key}_gtFine_labelIds.png", ids)
    return load_segmentation(tmp_path / "City", ["val"])[0]


@pytest.fixture
def in_memory() -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (3, 3, 10, 20), generator=generator, dtype=torch.uint8)
    masks = torch.randint(2, (3, 10, 20), generator=generator, dtype=torch.uint8)
    return SegmentedImages(images, masks, ("a", "b", "c"), ("sky", "road"), ((0, 0, 0), (9, 9, 9)))


@pytest.fixture(params=["in_files", "in_memory"])
def split(request: pytest.FixtureRequest) -> Split:
    return request.getfixturevalue(request.param)


def test_whole_images_come_in_their_order(split: Split) -> None:
    batches = list(whole_batches(split, IMAGENET, workers=0)(device="cpu"))
    images = [image for images, _ in batches for image in images]
    masks = [mask for _, masks in batches for mask in masks]
    assert len(images) == 3
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        pixels, labels = look_at(split, index)
        torch.testing.assert_close(image, IMAGENET(pixels[None])[0])
        assert torch.equal(mask, labels.long())
        assert type(labels) is torch.Tensor


def test_training_batches_are_augmented_and_depend_on_the_seed(split: Split) -> None:
    def epoch(seed: int) -> list[torch.Tensor]:
        make = training_batches(
            split, 2, IMAGENET, SegmentationAugment((8, 8)), channels_last=True, workers=0, seed=seed
        )
        return [images for images, _ in make(device="cpu")]

    (first,) = epoch(0)  # the third image waits for another epoch
    assert first.shape == (2, 3, 8, 8)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(epoch(0)[0], first)
    assert not torch.equal(epoch(1)[0], first)


def test_names(in_files: Split, in_memory: Split) -> None:
    assert in_files.name(1) == "ulm_000001_000019_leftImg8bit.png"
    assert in_memory.name(1) == "b"
