import numpy as np
import pytest
import torch
from pictures import read_pixels, write_image
from torchvision.datasets import Cityscapes

from mgic_geo.datasets import (
    IGNORE,
    CorruptImageError,
    FileLoader,
    Normalization,
    PerSample,
    SegmentationAugment,
    cityscapes,
    load_cityscapes,
    split_validation,
)

HALF = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Cityscapes with images of 12 × 24: two cities of two to train, one to validate."""
    monkeypatch.setenv("MGIC_DATA", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, cities, count in (("train", ("bochum", "aachen"), 2), ("val", ("ulm",), 1)):
        for city in cities:
            for number in range(count):
                key = f"{split}/{city}/{city}_{number:06d}_000019"
                pixels = rng.integers(0, 256, (12, 24, 3), dtype=np.uint8)
                write_image(tmp_path / f"City/leftImg8bit/{key}_leftImg8bit.png", pixels)
                ids = rng.integers(0, 34, (12, 24), dtype=np.uint8)
                ids[0, 0] = 255  # a licence plate
                write_image(tmp_path / f"City/gtFine/{key}_gtFine_labelIds.png", ids)
    return tmp_path / "City"


def test_classes_are_torchvisions():
    for entry in Cityscapes.classes:
        if 0 <= entry.train_id < 255:
            assert cityscapes.CLASSES[entry.train_id] == entry.name
            assert cityscapes.PALETTE[entry.train_id] == entry.color
            assert cityscapes.TRAIN_IDS[entry.id] == entry.train_id
        else:
            assert cityscapes.TRAIN_IDS[entry.id] == IGNORE  # −1, the licence plate, is the last: 255
    assert len(cityscapes.CLASSES) == 19
    assert (cityscapes.TRAIN_IDS == 254).sum() == 256 - 35


def test_images_and_train_ids(root):
    train, val = load_cityscapes(root)
    assert (len(train), len(val)) == (4, 1)
    assert train.name(0) == "aachen_000000_000019_leftImg8bit.png"
    image, mask = val.read(0)
    key = "val/ulm/ulm_000000_000019"
    assert torch.equal(image.permute(1, 2, 0), read_pixels(root / f"leftImg8bit/{key}_leftImg8bit.png"))
    ids = read_pixels(root / f"gtFine/{key}_gtFine_labelIds.png")
    for label_id, train_id in zip(ids.flatten().tolist(), mask.flatten().tolist(), strict=True):
        known = {entry.id % 256: entry.train_id % 256 for entry in Cityscapes.classes}
        assert train_id == known[label_id]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches(root, workers):
    train, val = load_cityscapes(root)
    transform = PerSample(SegmentationAugment(size=(10, 14)), HALF)
    loader = FileLoader(train, 2, normalization=HALF, transform=transform, train=True, workers=workers)
    first = list(loader)
    for images, masks in first:
        assert images.shape == (2, 3, 10, 14)
        assert type(images) is torch.Tensor
        assert masks.shape == (2, 10, 14)
        assert masks.dtype == torch.int64
    assert all(torch.equal(a[1], b[1]) for a, b in zip(first, loader, strict=True))
    ((image, mask),) = FileLoader(val, 1, normalization=HALF, workers=0)
    assert image.shape == (1, 3, 12, 24)
    assert torch.equal(mask[0], torch.as_tensor(val.read(0)[1]).long())


def test_all_problems_are_named_at_once(root):
    mask = root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png"
    write_image(mask, np.full((12, 24), 99, np.uint8))
    write_image(root / "gtFine/val/ulm/ulm_000009_000019_gtFine_labelIds.png", np.zeros((12, 24), np.uint8))
    (root / "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png").unlink()
    write_image(
        root / "gtFine/train/bochum/bochum_000000_000019_gtFine_labelIds.png", np.zeros((6, 24), np.uint8)
    )
    (root / "leftImg8bit/train/bochum/bochum_000001_000019_leftImg8bit.png").write_bytes(b"nothing")
    with pytest.raises(CorruptImageError, match="Nothing is left to load"):
        load_cityscapes(root, ["train"], skip_corrupt=True)
    write_image(mask, np.zeros((12, 24), np.uint8))
    (root / "gtFine/val/ulm/ulm_000000_000019_gtFine_labelIds.png").write_bytes(b"")
    key = "val/ulm/ulm_000001_000019"
    write_image(root / f"leftImg8bit/{key}_leftImg8bit.png", np.zeros((12, 24, 3), np.uint8))
    write_image(root / f"gtFine/{key}_gtFine_labelIds.png", np.full((12, 24), 99, np.uint8))
    key = "val/ulm/ulm_000002_000019"
    write_image(root / f"leftImg8bit/{key}_leftImg8bit.png", np.zeros((12, 24, 3), np.uint8))
    write_image(root / f"gtFine/{key}_gtFine_labelIds.png", np.zeros((12, 24), np.uint8))
    with pytest.raises(CorruptImageError, match=r"6 file\(s\) of .*City cannot be used") as caught:
        load_cityscapes(root)
    for part in (
        "aachen_000001_000019_leftImg8bit.png: has no mask of its name",
        "ulm_000009_000019_gtFine_labelIds.png: has no image of its name",
        "bochum_000000_000019_leftImg8bit.png: is 12 × 24, but its mask bochum_000000_000019_gtFine",
        "bochum_000001_000019_leftImg8bit.png: cannot be decoded",
        "ulm_000000_000019_leftImg8bit.png: its mask ulm_000000_000019_gtFine_labelIds.png is empty",
        "its mask ulm_000001_000019_gtFine_labelIds.png holds the labels [99]; known are [0, 1, 2,",
        "skip_corrupt=True",
    ):
        assert part in str(caught.value)
    with pytest.warns(UserWarning, match="left out as asked: 6 of 8 images of .*City\n"):
        train, val = load_cityscapes(root, skip_corrupt=True)
    assert (train.name(0)[:13], len(train)) == ("aachen_000000", 1)
    assert (val.name(0)[:10], len(val)) == ("ulm_000002", 1)


def test_layouts_are_checked(root):
    with pytest.raises(FileNotFoundError, match=r"no folder .*leftImg8bit/test; unpack Cityscapes'"):
        load_cityscapes(root, ["test"])
    (root / "leftImg8bit/none").mkdir()
    (root / "gtFine/none").mkdir()
    with pytest.raises(ValueError, match="no images with masks of the split 'none'"):
        load_cityscapes(root, ["none"])
    with pytest.raises(ValueError, match="pass verify=True"):
        load_cityscapes(root, verify=False, skip_corrupt=True)


def test_hidden_folders_are_no_cities(root):
    write_image(root / "leftImg8bit/train/.cache/a_leftImg8bit.png", np.zeros((12, 24, 3), np.uint8))
    assert len(load_cityscapes(root, ["train"])[0]) == 4


def test_validation_can_be_drawn(root):
    (train,) = load_cityscapes(root, ["train"], verify=False)
    kept, drawn = split_validation(train, 0.25, seed=2)
    assert (len(kept), len(drawn)) == (3, 1)
    assert set(kept.images) | set(drawn.images) == set(train.images)
    assert drawn.masks[0].name.startswith(drawn.name(0)[:20])
