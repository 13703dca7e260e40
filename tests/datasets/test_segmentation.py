import numpy as np
import pytest
import torch
from pictures import write_image

from mgic_geo.datasets import (
    CorruptImageError,
    SegmentedImages,
    check_labels,
    label_counts,
    load_segmentation,
    palette_of,
)
from mgic_geo.datasets.cityscapes import SegmentedFiles


@pytest.fixture
def camvid(tmp_path, monkeypatch):
    """CamVid with two images to train on, 6 × 8."""
    monkeypatch.setenv("MGIC_DATA", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number in range(2):
        image = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        write_image(tmp_path / f"CamVid/train/{number}.png", image)
        mask = rng.integers(0, 12, (6, 8), dtype=np.uint8)
        write_image(tmp_path / f"CamVid/trainannot/{number}.png", mask)
    return tmp_path / "CamVid"


@pytest.fixture
def cityscapes(tmp_path, monkeypatch):
    """Cityscapes with two images to train on, 6 × 8."""
    monkeypatch.setenv("MGIC_DATA", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number in range(2):
        key = f"train/ulm/ulm_{number:06d}_000019"
        image = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        write_image(tmp_path / f"City/leftImg8bit/{key}_leftImg8bit.png", image)
        ids = rng.integers(0, 34, (6, 8), dtype=np.uint8)
        write_image(tmp_path / f"City/gtFine/{key}_gtFine_labelIds.png", ids)
    return tmp_path / "City"


def test_the_layout_is_recognised(camvid, cityscapes):
    (train,) = load_segmentation(camvid, ["train"])
    assert isinstance(train, SegmentedImages)
    assert len(train.classes) == 11
    (train,) = load_segmentation(cityscapes, ["train"])
    assert isinstance(train, SegmentedFiles)
    assert len(train.classes) == 19


def test_half_of_cityscapes_is_told_what_it_lacks(tmp_path):
    (tmp_path / "City/gtFine/train").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"no folder .*leftImg8bit/train; unpack Cityscapes'"):
        load_segmentation(tmp_path / "City")


def test_the_folder_above_cityscapes_is_told_where_it_is(cityscapes):
    with pytest.raises(
        FileNotFoundError, match=r"is no data set, but .*City seems to be Cityscapes; pass that"
    ):
        load_segmentation(cityscapes.parent)


@pytest.mark.parametrize("layout", ["camvid", "cityscapes"])
def test_labels_are_counted_image_by_image(layout, request):
    (train,) = load_segmentation(request.getfixturevalue(layout), ["train"])
    counts = label_counts(train, workers=0)
    for index, row in enumerate(counts):
        mask = train.masks[index] if layout == "camvid" else train.read_mask(index)
        assert row.tolist() == [int((mask == c).sum()) for c in range(len(train.classes))]
    assert counts.dtype == torch.int64


@pytest.mark.parametrize("label", [0, 1, 255])
def test_classes_that_a_mask_lacks_count_0(label):
    images, masks = torch.zeros(1, 3, 2, 3).byte(), torch.full((1, 2, 3), label, dtype=torch.uint8)
    split = SegmentedImages(images, masks, ("one",), ("a", "b"), ((0, 0, 0), (9, 9, 9)))
    assert label_counts(split).tolist() == [[6 * (label == 0), 6 * (label == 1)]]


@pytest.mark.parametrize("layout", ["camvid", "cityscapes"])
def test_training_needs_a_label(layout, request):
    data = request.getfixturevalue(layout)
    check_labels(load_segmentation(data, ["train"])[0])
    void = np.full((6, 8), 11 if layout == "camvid" else 0, np.uint8)
    for mask in [*data.glob("trainannot/*"), *data.glob("gtFine/train/*/*")]:
        write_image(mask, void)
    with pytest.raises(ValueError, match=r"no pixel of its 2 training image\(s\) has a label"):
        check_labels(load_segmentation(data, ["train"])[0])


def test_a_mask_that_went_bad_is_named(cityscapes):
    (train,) = load_segmentation(cityscapes, ["train"])
    train.masks[1].write_bytes(b"")
    with pytest.raises(CorruptImageError, match=r"ulm_000001_000019_gtFine_labelIds\.png is empty"):
        label_counts(train)


def test_colours_of_known_classes_and_of_others(camvid, cityscapes):
    for data in (camvid, cityscapes):
        (train,) = load_segmentation(data, ["train"])
        assert palette_of(train.classes) == train.palette
    others = palette_of([str(place) for place in range(255)])
    assert others[:8] == (
        (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
        (64, 0, 0),
    )  # fmt: skip
    assert len({*others, (0, 0, 0)}) == 256
