import numpy as np
import pytest
import torch
from pictures import read_pixels, write_image
from torchvision.datasets import ImageFolder

from mgic_geo.datasets import (
    IMAGENET,
    CorruptImageError,
    FileLoader,
    eval_transform,
    load_image_files,
    split_validation,
    train_transform,
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """ImageNet's layout: two classes, four training images and two of validation each, of many sizes."""
    monkeypatch.setenv("MGIC_DATA", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for label in ("n02", "n01"):
            for number in range(count):
                shape = (*rng.integers(20, 60, 2), 3)
                file = tmp_path / "ImageNet" / split / label / f"{label}_{number}.png"
                write_image(file, rng.integers(0, 256, shape, dtype=np.uint8))
    return tmp_path / "ImageNet"


def test_files_are_torchvisions(root):
    write_image(root / "train/n01/deep/er.jpg", np.zeros((8, 8, 3), np.uint8))
    (root / "train/n01/notes.txt").write_text("no image")
    for split, files in zip(("train", "val"), load_image_files(root), strict=True):
        theirs = ImageFolder(root / split)
        assert list(files.classes) == theirs.classes
        assert sorted((str(files.root / files.name(i)), int(files.labels[i])) for i in range(len(files))) == (
            sorted(theirs.samples)
        )
    image, label = files.read(0)
    assert label == 0
    assert torch.equal(image.permute(1, 2, 0), read_pixels(root / "val/n01/n01_0.png"))


def test_hidden_folders_are_no_classes_and_hold_no_images(root):
    plain = load_image_files(root)
    for hidden in ("train/.cache/1.png", "train/n01/.ipynb_checkpoints/n01_0.png", "val/n01/.1.png"):
        write_image(root / hidden, np.zeros((8, 8, 3), np.uint8))
    for before, files in zip(plain, load_image_files(root), strict=True):
        assert files.classes == ("n01", "n02")
        assert files.files.tolist() == before.files.tolist()


def test_batches(root):
    train, val = load_image_files(root)
    augmented = FileLoader(
        train, 3, normalization=IMAGENET, transform=train_transform(16), train=True, workers=0
    )
    plain = FileLoader(val, 3, normalization=IMAGENET, transform=eval_transform(16, 20), workers=0)
    first = torch.cat([images for images, _ in augmented])
    assert first.shape == (6, 3, 16, 16)
    assert torch.equal(first, torch.cat([images for images, _ in augmented]))
    augmented.set_epoch(1)
    assert not torch.equal(first, torch.cat([images for images, _ in augmented]))
    assert [labels.tolist() for _, labels in plain] == [[0, 0, 1], [1]]


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (112, 128)])
def test_eval_transform_resizes_in_proportion(size, resize):
    image = torch.randint(256, (3, 160, 150), dtype=torch.uint8)
    assert torch.equal(eval_transform(size)(image), eval_transform(size, resize)(image))


@pytest.mark.parametrize("parts", [{"rand_augment": 9}, {"erase": 1.0}, {"flip": False, "scale": (1.0, 1.0)}])
def test_train_transform(root, parts):
    (train,) = load_image_files(root, ["train"], verify=False)
    loader = FileLoader(
        train, 4, normalization=IMAGENET, transform=train_transform(16, **parts), train=True, workers=0
    )
    batches = [images for images, _ in loader]
    assert all(images.shape == (4, 3, 16, 16) for images in batches)
    assert all(map(torch.equal, batches, [images for images, _ in loader]))


def test_corrupt_images_are_named_at_once(root, tmp_path):
    (root / "train/n01/n01_1.png").write_bytes(b"nothing")
    (root / "val/n02/n02_0.png").write_bytes((root / "val/n02/n02_0.png").read_bytes()[:-60])
    for skip in (False, True, False):
        if skip:
            with pytest.warns(
                UserWarning, match="left out as asked: 2 of 12 images of .*ImageNet\n"
            ) as warned:
                train, val = load_image_files(root, skip_corrupt=True)
            assert "\n  train/n01/n01_1.png: cannot" in str(warned[0].message)
            assert (warned[0].filename, len(warned)) == (__file__, 1)
            assert (len(train), len(val)) == (7, 3)
            assert "n01/n01_1.png" not in [train.name(i) for i in range(7)]
            assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
        else:
            with pytest.raises(
                CorruptImageError, match=r"2 file\(s\) of .*ImageNet cannot be used"
            ) as caught:
                load_image_files(root)
            assert "train/n01/n01_1.png: cannot be decoded" in str(caught.value)
            assert "val/n02/n02_0.png: cannot be decoded" in str(caught.value)
    assert len(load_image_files(root, verify=False)[0]) == 8
    with pytest.raises(ValueError, match="pass verify=True"):
        load_image_files(root, verify=False, skip_corrupt=True)


def test_a_link_to_nothing_is_named(root):
    (root / "train/n01/n01_0.png").unlink()
    (root / "train/n01/n01_0.png").symlink_to("gone.png")
    with pytest.raises(CorruptImageError, match=r"1 file.*\n  train/n01/n01_0\.png: cannot be read"):
        load_image_files(root)
    with pytest.warns(UserWarning, match="left out as asked: 1 of 12 images"):
        assert len(load_image_files(root, skip_corrupt=True)[0]) == 7


def test_images_are_verified_once(root, monkeypatch):
    load_image_files(root, workers=0)
    with monkeypatch.context() as patch:
        patch.setattr("mgic_geo.datasets.imagenet.decode_image", pytest.fail)
        load_image_files(root)
    (root / "val/n02/n02_0.png").write_bytes(b"")
    with pytest.raises(CorruptImageError, match=r"n02_0\.png: is empty"):
        load_image_files(root)


def test_workers_verify_alike(root):
    (root / "train/n01/n01_1.png").write_bytes(b"nothing")
    with pytest.raises(CorruptImageError, match=r"1 file.*\n  train/n01/n01_1\.png: cannot"):
        load_image_files(root, workers=2)


def test_a_split_without_readable_images(root):
    for file in (root / "val").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(CorruptImageError, match="Nothing is left to load"):
        load_image_files(root, skip_corrupt=True)


def test_a_file_that_vanishes_is_named(root):
    (train,) = load_image_files(root, ["train"], verify=False)
    (root / "train/n01/n01_0.png").unlink()
    with pytest.raises(CorruptImageError, match="cannot be read"):
        train.read(0)


def test_layouts_are_checked(root):
    with pytest.raises(FileNotFoundError, match=r"no folder .*test; the layout is .*<class>/\*\.jpg$"):
        load_image_files(root, ["test"])
    write_image(root / "val/n03/1.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="must hold the same class folders; only one of them has n03"):
        load_image_files(root)
    (root / "flat").mkdir()
    with pytest.raises(ValueError, match="no images in class folders"):
        load_image_files(root, ["flat"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_without_images_is_named(root, split):
    for file in (root / split / "n02").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=rf"{split} has folders without images: n02; fill or remove them"):
        load_image_files(root)


def test_test_stands_for_val_where_there_is_none(root):
    both = load_image_files(root)
    (root / "val").rename(root / "test")
    (root / "test/n01/n01_0.png").write_bytes(b"")
    with pytest.raises(CorruptImageError, match=r"\n  test/n01/n01_0\.png: is empty"):
        load_image_files(root)
    train, val = load_image_files(root, verify=False)
    assert (train.root, val.root) == (root / "train", root / "test")
    assert val.files.tolist() == both[1].files.tolist()
    with pytest.raises(FileNotFoundError, match=r"no folder .*/val; the layout"):
        load_image_files(root, ["val", "test"], verify=False)
    write_image(root / "val/n01/other.png", np.zeros((8, 8, 3), np.uint8))
    write_image(root / "val/n02/other.png", np.zeros((8, 8, 3), np.uint8))
    assert len(load_image_files(root, verify=False)[1]) == 2
    for split in ("val", "test"):
        (root / split).rename(root / f"no {split}")
    with pytest.raises(FileNotFoundError, match=r"no folder .*/val or .*/test; the layout"):
        load_image_files(root)


def test_validation_can_be_drawn(root):
    (train,) = load_image_files(root / "train", ["."])
    kept, drawn = split_validation(train, 0.25)
    assert drawn.labels.tolist() == [0, 1]
    names = [part.name(i) for part in (kept, drawn) for i in range(len(part))]
    assert sorted(names) == [train.name(i) for i in range(8)]
