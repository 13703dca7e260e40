import pytest
import torch
from torchvision.transforms.v2 import functional as F

from mgic_geo.datasets import Color, ImageAugment
from mgic_geo.datasets.image_augment import crop_and_flip, cut_out

FILL = (0.5, 0.25, 0.75)


@pytest.fixture
def batch():
    return torch.randint(0, 256, (64, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def changed(images, seed=0, **parts):
    off = {"padding": 0, "flip": False, "color": None, "cutout": 0}
    labels = torch.arange(len(images))
    generator = torch.Generator().manual_seed(seed)
    result, targets = ImageAugment(**(off | parts))(images, labels, generator, FILL)
    assert targets is labels
    return result


def test_all_off_changes_nothing(batch):
    assert torch.equal(changed(batch), batch)


def test_same_seed_same_change_and_input_kept(batch):
    before = batch.clone()
    parts = {"padding": 2, "flip": True, "color": Color(0.3, 0.3, 0.3), "cutout": 3}
    assert torch.equal(changed(batch, **parts), changed(batch, **parts))
    assert not torch.equal(changed(batch, **parts), changed(batch, seed=1, **parts))
    assert torch.equal(batch, before)


def test_crop_and_flip_against_one_image_at_a_time(batch):
    """The slow twin: torchvision's crop of the padded image, then its flip."""
    generator = torch.Generator().manual_seed(0)
    shifts = torch.randint(0, 5, (64, 2), generator=generator)
    flips = torch.rand(64, generator=generator) < 0.5
    fast = crop_and_flip(batch, shifts, flips, 2)
    for image, (top, left), flip, result in zip(batch, shifts.tolist(), flips.tolist(), fast, strict=True):
        slow = F.crop(F.pad(image, [2]), top, left, 9, 7)
        assert torch.equal(result, F.horizontal_flip(slow) if flip else slow)


def test_crops_are_uniform_over_all_places():
    """Each pixel holds its place, so that a result tells its crop and its flip."""
    rows, columns = torch.meshgrid(torch.arange(1, 10), torch.arange(1, 8), indexing="ij")
    place = torch.stack([rows, columns, rows]).to(torch.uint8)
    result = changed(place.expand(4000, 3, 9, 7), padding=2, flip=True).int()
    tops, middles = result[:, 0, 4, 3] - 5, result[:, 1, 4, 3] - 4
    flipped = result[:, 1, 4, 4] < result[:, 1, 4, 2]
    assert 0.46 < flipped.float().mean() < 0.54
    counts = torch.zeros(5, 5)
    counts.index_put_((tops + 2, middles + 2), torch.ones(4000), accumulate=True)
    assert counts.min() > 105  # 160 expected, with a deviation of 12.4
    assert counts.max() < 215


def test_a_part_that_is_off_changes_no_other(batch):
    both = changed(batch, padding=2, flip=True, cutout=3)
    hole = (both == torch.tensor(FILL).view(3, 1, 1)).all(1, keepdim=True)
    plain = changed(batch, padding=2, flip=True)
    assert torch.equal(both.masked_fill(hole, 0), (plain / 255).masked_fill(hole, 0))


@pytest.mark.parametrize("side", [1, 2, 5])
def test_cutout_against_one_image_at_a_time(batch, side):
    draws = torch.rand(64, 2, generator=torch.Generator().manual_seed(2))
    fast = cut_out(batch, draws, side, FILL)
    for image, (row, column), result in zip(batch, draws.tolist(), fast, strict=True):
        slow = image / 255
        top, left = int(row * 9) - side // 2, int(column * 7) - side // 2
        for color in range(3):
            slow[color, max(0, top) : top + side, max(0, left) : left + side] = FILL[color]
        assert torch.equal(result, slow)


def test_colours_against_torchvision(batch):
    color = Color(0.4, 0.5, 1.5)
    draws = torch.rand(64, 3, generator=torch.Generator().manual_seed(3))
    fast = color(batch, draws)
    for image, draw, result in zip(batch, draws.tolist(), fast, strict=True):
        slow = F.adjust_brightness(image / 255, 0.6 + 0.8 * draw[0])
        slow = F.adjust_contrast(slow, 0.5 + draw[1])
        slow = F.adjust_saturation(slow, 2.5 * draw[2])  # 1 ± 1.5, but not below 0
        assert torch.allclose(result, slow, atol=1e-5)


def test_colour_stays_in_range_and_off_is_off(batch):
    draws = torch.rand(64, 3, generator=torch.Generator().manual_seed(3))
    strong = Color(2, 2, 2)(batch, draws)
    assert strong.min() >= 0
    assert strong.max() <= 1
    assert torch.equal(Color()(batch, draws), batch / 255)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ImageAugment(padding=-1), "padding must be 0"),
        (lambda: ImageAugment(cutout=-1), "cutout must be 0"),
        (lambda: Color(contrast=-0.1), "contrast must be 0"),
        (lambda: Color(brightness=float("inf")), "brightness must be 0"),
    ],
)
def test_values_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
