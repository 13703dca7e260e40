import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import read_pixels, write_image

from mgic_geo.datasets import (
    IGNORE,
    CorruptImageError,
    ImageLoader,
    Normalization,
    SegmentationAugment,
    SegmentedImages,
    camvid,
    load_camvid,
    split_validation,
)

SHARED = Path(__file__).parents[3] / "shared/data/camvid.zip"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """CamVid with images of 12 × 16: five to train, two to validate, one to test without a mask."""
    monkeypatch.setenv("MGIC_DATA", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2), ("test", 1)):
        for number in range(count):
            name = tmp_path / "CamVid" / split / f"{number:04d}.png"
            write_image(name, rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
            if split != "test":
                mask = rng.integers(0, 12, (12, 16), dtype=np.uint8)
                write_image(name.parents[1] / f"{split}annot" / name.name, mask)
    return tmp_path / "CamVid"


def test_images_and_masks(root):
    train, val = load_camvid(root)
    assert train.images.shape == (5, 3, 12, 16)
    assert val.masks.shape == (2, 12, 16)
    assert train.names == tuple(f"{number:04d}" for number in range(5))
    assert torch.equal(train.images[3].permute(1, 2, 0), read_pixels(root / "train/0003.png"))
    mask = read_pixels(root / "trainannot/0003.png")
    assert torch.equal(train.masks[3] == IGNORE, mask == 11)
    assert torch.equal(train.masks[3][mask != 11], mask[mask != 11])
    assert len(train.classes) == len(train.palette) == 11


def test_zip_and_cache_give_the_same(root, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "camvid.zip", "w") as archive:
        for file in sorted(root.rglob("*.png"), reverse=True):
            archive.write(file, file.relative_to(tmp_path))
    folder, archived = load_camvid(root), load_camvid(tmp_path / "camvid.zip")
    monkeypatch.setattr(camvid, "decode_pairs", pytest.fail)
    for split, first in enumerate(folder):
        for again in (archived[split], load_camvid(root)[split], load_camvid(tmp_path / "camvid.zip")[split]):
            assert torch.equal(again.images, first.images)
            assert torch.equal(again.masks, first.masks)
            assert again.names == first.names


def test_splits_are_chosen_and_missing_ones_named(root):
    (val,) = load_camvid(root, ["val"])
    assert len(val) == 2
    with pytest.raises(
        ValueError, match=r"has no split 'test' with masks but train, val; the layout is NAME/"
    ):
        load_camvid(root, ["test"])


def test_validation_can_be_drawn(root):
    (train,) = load_camvid(root, ["train"])
    kept, drawn = split_validation(train, 0.4, seed=1)
    assert len(kept) == 3
    assert sorted(kept.names + drawn.names) == list(train.names)
    assert torch.equal(drawn.masks[0], train.masks[int(drawn.names[0])])


def test_all_problems_are_named_at_once(root):
    write_image(root / "trainannot/0000.png", np.full((12, 16), 77, np.uint8))
    write_image(root / "valannot/0000.png", np.zeros((12, 15), np.uint8))
    write_image(root / "valannot/0007.png", np.zeros((12, 16), np.uint8))
    write_image(root / "trainannot/0001.png", np.zeros((12, 16, 3), np.uint8))
    (root / "trainannot/0002.png").unlink()
    (root / "train/0003.png").write_bytes(b"nothing")
    write_image(root / "train/0005.png", np.zeros((10, 16, 3), np.uint8))
    write_image(root / "trainannot/0005.png", np.zeros((10, 16), np.uint8))
    with pytest.raises(CorruptImageError, match=r"7 file\(s\) of .*CamVid cannot be used") as caught:
        load_camvid(root)
    for part in (
        "trainannot/0000.png: holds the labels [77]; labels must lie in 0 … 10, or be 11 or 255",
        "valannot/0000.png: is 12 × 15, but its image is 12 × 16",
        "valannot/0007.png: has no image of its name",
        "trainannot/0001.png: holds RGB pixels; a mask must hold one 8-bit label a pixel",
        "train/0002.png: has no mask of its name",
        "train/0003.png: cannot be decoded",
        "train/0005.png: is 10 × 16, but the most frequent size is 12 × 16",
        "skip_corrupt=True",
    ):
        assert part in str(caught.value)
    with pytest.warns(UserWarning, match="left out as asked: 7 of 16 images of .*CamVid\n"):
        train, val = load_camvid(root, skip_corrupt=True)
    assert (train.names, val.names) == (("0004",), ("0001",))
    with pytest.raises(CorruptImageError, match="7 file"):
        load_camvid(root)


def test_a_link_to_nothing_is_named(root):
    (root / "trainannot/0001.png").unlink()
    (root / "trainannot/0001.png").symlink_to("gone.png")
    with pytest.raises(CorruptImageError, match=r"1 file.*\n  trainannot/0001\.png: cannot be read"):
        load_camvid(root)


def test_layouts_are_checked(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        load_camvid(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no images with masks; the layout is NAME/<split>/"):
        load_camvid(root / "test")
    write_image(tmp_path / "both/b/train/0.png", np.zeros((4, 4, 3), np.uint8))
    root.rename(tmp_path / "both/a")
    with pytest.raises(ValueError, match=r"several data sets \(a, b\)"):
        load_camvid(tmp_path / "both")


def test_batches(root):
    train, val = load_camvid(root)
    normalization = Normalization.of(train.images)
    augment = SegmentationAugment(size=(8, 10))
    loader = ImageLoader(train, 2, normalization=normalization, train=True, augment=augment)
    for images, masks in loader:
        assert images.shape == (2, 3, 8, 10)
        assert masks.shape == (2, 8, 10)
        assert masks.dtype == torch.int64
    first = [masks for _, masks in loader]
    assert all(map(torch.equal, first, [masks for _, masks in loader]))
    loader.set_epoch(1)
    assert not all(map(torch.equal, first, [masks for _, masks in loader]))
    (batch,) = ImageLoader(val, 4, normalization=normalization)
    assert torch.equal(batch[1], val.masks.long())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 3, 4, 4)}, "images must be"),
        ({"masks": torch.zeros(2, 4, 5, dtype=torch.uint8)}, r"masks must be \(2, 4, 4\) in uint8"),
        ({"masks": torch.zeros(2, 4, 4, dtype=torch.int64)}, "got .* in int64"),
        ({"masks": torch.full((2, 4, 4), 2, dtype=torch.uint8)}, r"mask of x holds \[2\]"),
        ({"palette": ((0, 0, 0),)}, "one colour a class, 2; got 1"),
    ],
)
def test_parts_must_fit(change, message):
    parts = {
        "images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        "masks": torch.full((2, 4, 4), IGNORE, dtype=torch.uint8),
        "names": ("x", "y"),
        "classes": ("a", "b"),
        "palette": ((0, 0, 0), (1, 1, 1)),
    }
    assert len(SegmentedImages(**parts)) == 2
    with pytest.raises(ValueError, match=message):
        SegmentedImages(**(parts | change))


def test_classes_and_palette_fit():
    assert len(set(camvid.PALETTE)) == len(set(camvid.CLASSES)) == 11


@pytest.mark.skipif(not SHARED.is_file(), reason="the real images are not at hand")
def test_real_masks_are_known():
    with zipfile.ZipFile(SHARED) as archive:
        masks = [name for name in archive.namelist() if "annot/" in name]
        assert len(masks) == 468
        for name in masks[::80]:
            assert camvid._labels(archive.read(name)).shape == (360, 480)
