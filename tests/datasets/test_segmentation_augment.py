import pytest
import torch
from torchvision.transforms.v2 import functional as F

from mgic_geo.datasets import IGNORE, Color, SegmentationAugment
from mgic_geo.datasets.segmentation_augment import resize, resize_mask

FILL = (0.2, 0.4, 0.6)
FRAME = torch.tensor(FILL).mul(255).round().byte().view(3, 1, 1)


def changed(images, masks, seed=0, **parts):
    off = {"scale": (1, 1), "flip": False}
    augment = SegmentationAugment(**(off | parts))
    return augment(images, masks, torch.Generator().manual_seed(seed), FILL)


def places(batch, height, width):
    """Images whose red is 2 · row and green 2 · column; masks that say row // 8 * 8 + column // 8."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([2 * rows, 2 * columns, 0 * rows]).byte()
    mask = (rows // 8 * 8 + columns // 8).byte()
    return image.expand(batch, -1, -1, -1).clone(), mask.expand(batch, -1, -1).clone()


def noise(batch=12, height=20, width=28):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 11, (batch, height, width), dtype=torch.uint8, generator=generator)


def test_all_off_changes_nothing():
    images, masks = noise()
    for result, given in zip(changed(images, masks), (images, masks), strict=True):
        assert torch.equal(result, given)


def test_same_seed_same_change_and_input_kept():
    images, masks = noise()
    before = images.clone(), masks.clone()
    parts = {"scale": (0.5, 2), "flip": True, "color": Color(0.2, 0.2, 0.2), "size": (16, 20)}
    first, again = changed(images, masks, **parts), changed(images, masks, **parts)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], changed(images, masks, seed=1, **parts)[0])
    assert all(map(torch.equal, (images, masks), before))


@pytest.mark.parametrize("scale", [(1, 1), (0.5, 0.5), (2, 2), (0.5, 2.0)])
@pytest.mark.parametrize("size", [None, (24, 40), (64, 80)])
def test_image_and_mask_change_alike(scale, size):
    """The image tells where a pixel came from; the mask must say the label of that place."""
    images, masks = places(16, 48, 64)
    results, result_masks = changed(images, masks, scale=scale, size=size, flip=True)
    assert results.shape[2:] == result_masks.shape[1:] == (size or (48, 64))
    framed = (results == FRAME).all(1)
    assert torch.equal(framed, result_masks == IGNORE)
    rows, columns = results[:, 0].float() / 2, results[:, 1].float() / 2
    # Away from the borders of the 8 × 8 squares, where half a pixel decides, and of the image.
    safe = ~framed
    for place, length in ((rows, 48), (columns, 64)):
        safe &= ((place % 8 - 3.5).abs() < 2.3) & (place > 2) & (place < length - 3)
    assert safe.sum() > 400
    wanted = (rows.round() // 8 * 8 + columns.round() // 8).byte()
    assert torch.equal(result_masks[safe], wanted[safe])


def test_scale_and_window_are_uniform():
    images, masks = places(600, 40, 40)
    results, _ = changed(images, masks, scale=(1.0, 2.0), size=(20, 20), flip=True)
    rows, columns = results[:, 0].float() / 2, results[:, 1].float() / 2
    steps = (rows[:, 15, 10] - rows[:, 5, 10]) / 10
    factors = 1 / steps
    assert 0.93 < factors.min() < 1.05
    assert 1.85 < factors.max() < 2.1
    assert 1.4 < factors.mean() < 1.6
    assert torch.allclose(steps, (columns[:, 10, 15] - columns[:, 10, 5]).abs() / 10, atol=0.15)
    assert 0.43 < (columns[:, 10, 15] < columns[:, 10, 5]).float().mean() < 0.57
    assert rows[:, 0, 10].min() < 1.5
    assert rows[:, -1, 10].max() > 37.5


def test_small_images_lie_at_random_in_the_frame():
    images, masks = places(200, 16, 16)
    _, result_masks = changed(images, masks, size=(20, 24))
    tops = (result_masks != IGNORE).any(2).float().argmax(1)
    lefts = (result_masks != IGNORE).any(1).float().argmax(1)
    assert sorted(set(tops.tolist())) == list(range(5))
    assert sorted(set(lefts.tolist())) == list(range(9))
    assert ((result_masks != IGNORE).sum((1, 2)) == 16 * 16).all()


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.6])
def test_scaling_the_whole_image_is_torchvisions(factor):
    images, masks = noise(4)
    size = round(20 * factor), round(28 * factor)
    results, result_masks = changed(images, masks, scale=(factor, factor), size=size)
    assert torch.equal(results, F.resize(images, list(size), antialias=True))
    nearest = torch.nn.functional.interpolate(masks[:, None], size, mode="nearest-exact")[:, 0]
    assert torch.equal(result_masks, nearest)


def test_cut_and_resize_against_torchvision():
    """The slow twin: of all windows, torchvision's resized crop of one must be the result."""
    images, masks = noise(6)
    results, _ = changed(images, masks, scale=(1.25, 1.25), size=(20, 20))
    for image, result in zip(images, results, strict=True):
        windows = [
            F.resized_crop(image, top, left, 16, 16, [20, 20], antialias=True)
            for top in range(5)
            for left in range(13)
        ]
        assert any(torch.equal(result, window) for window in windows)


def test_other_devices_resize_in_floats(monkeypatch):
    """Bytes cannot be resized on a GPU; the way through floats differs by rounding only."""
    images, masks = noise(1)
    size = torch.Size((13, 33))
    floats = torch.nn.functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    assert (resize(images[0], size).int() - floats[0].round().int()).abs().max() <= 1
    assert resize_mask(masks[0], size).shape == size


def test_colours_change_and_labels_do_not():
    images, masks = noise()
    results, result_masks = changed(images, masks, color=Color(0.5, 0.5, 0.5))
    assert results.dtype == torch.float32
    assert not torch.allclose(results, images / 255, atol=0.01)
    assert torch.equal(result_masks, masks)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"scale": (2.0, 1.0)}, "scale must be"),
        ({"scale": (0.0, 1.0)}, "scale must be"),
        ({"scale": (1.0, float("inf"))}, "scale must be"),
        ({"size": (0, 5)}, "size must be"),
    ],
)
def test_values_are_checked(parts, message):
    with pytest.raises(ValueError, match=message):
        SegmentationAugment(**parts)


def test_of_an_image_shrunk_to_a_pixel_its_mean_is_left():
    images, masks = noise()
    results, result_masks = changed(images, masks, scale=(0.01, 0.01))
    shown = result_masks != IGNORE
    assert shown.sum() == len(images)
    means = images.float().mean((2, 3))
    assert (results.movedim(1, -1)[shown].float() - means).abs().max() < 15
