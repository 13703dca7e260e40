import tarfile
import zipfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mgic_geo.datasets import CorruptImageError, Images, load_images
from mgic_geo.datasets.class_folders import _in_split
from mgic_geo.datasets.decode import decode_image
from mgic_geo.datasets.files import read_files

SHARED = Path(__file__).parents[3] / "shared/data/cifar10.tar.xz"


def archived(root: Path, path: Path) -> Path:
    files = sorted(root.rglob("*"), reverse=True)  # an archive has its own order
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(root.parent))
            archive.writestr("__MACOSX/Pets2/train/dog/._0000.png", b"shadow")
    else:
        with tarfile.open(path, f"w:{path.suffix[1:]}") as archive:
            for file in files:
                archive.add(file, file.relative_to(root.parent), recursive=False)
    return path


def equal(a: Images, b: Images) -> bool:
    same = torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
    return same and (a.names, a.classes) == (b.names, b.classes)


def test_class_folders(class_folders, tmp_path):
    train, test = load_images(class_folders, cache=tmp_path / "cache")
    assert train.images.shape == (10, 3, 8, 6)
    assert test.images.shape == (6, 3, 8, 6)
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [0] * 5 + [1] * 5
    assert train.names[5] == "dog/0000.png"
    with Image.open(class_folders / "train" / train.names[5]) as image:
        assert np.array_equal(train.images[5].permute(1, 2, 0).numpy(), np.array(image))


@pytest.mark.parametrize("name", ["pets2.zip", "pets2.tar.xz", "pets2.tar.gz"])
def test_archives_give_the_same_images(class_folders, tmp_path, name):
    path, cache = archived(class_folders, tmp_path / name), tmp_path / "cache"
    for folder, archive in zip(load_images(class_folders), load_images(str(path), cache=cache), strict=True):
        assert equal(folder, archive)
    (file,) = cache.glob("*.h5")
    assert file.name.startswith("pets2-")
    assert not list(cache.glob("*.tmp"))


@pytest.mark.parametrize("name", [None, "pets2.zip", "pets2.tar.xz"])
def test_hidden_folders_are_no_classes_and_hold_no_images(class_folders, tmp_path, name):
    plain = load_images(class_folders)
    for hidden in ("train/.cache/1.png", "train/dog/.ipynb_checkpoints/train/dog/2.png"):
        (class_folders / hidden).parent.mkdir(parents=True)
        Image.new("RGB", (6, 8)).save(class_folders / hidden)
    path = archived(class_folders, tmp_path / name) if name else class_folders
    assert all(map(equal, load_images(path), plain))


@pytest.fixture(autouse=True)
def default_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MGIC_DATA", str(tmp_path / "default"))


def test_all_bad_images_are_named_at_once(class_folders, tmp_path):
    (class_folders / "train/dog/0001.png").write_bytes(b"nothing")
    whole = (class_folders / "test/cat/0002.png").read_bytes()
    (class_folders / "test/cat/0002.png").write_bytes(whole[:-40])
    (class_folders / "train/cat/0000.png").write_bytes(b"")
    Image.new("RGB", (7, 8)).save(class_folders / "train/cat/0003.png")
    for skip in (False, True, False):
        if skip:
            with pytest.warns(UserWarning, match="left out as asked: 4 of 16 images of .*Pets2\n") as warned:
                train, test = load_images(class_folders, skip_corrupt=True)
            assert warned[0].filename == __file__
            assert len(warned) == 1
            assert "\n  train/cat/0000.png: is empty" in str(warned[0].message)
            assert len(train) == 7
            assert "cat/0003.png" not in train.names
            assert test.names == tuple(f"{x}.png" for x in ("cat/0000", "cat/0001")) + tuple(
                f"dog/000{n}.png" for n in range(3)
            )
        else:
            with pytest.raises(CorruptImageError, match=r"4 file\(s\) of .*Pets2") as caught:
                load_images(class_folders)
            for part in (
                "train/dog/0001.png: cannot be decoded (UnidentifiedImageError",
                "test/cat/0002.png: cannot be decoded",
                "train/cat/0000.png: is empty",
                "train/cat/0003.png: is 8 × 7, but the most frequent size is 8 × 6",
                "skip_corrupt=True",
            ):
                assert part in str(caught.value)


def test_of_many_left_out_ten_are_named(class_folders):
    for number in range(12):
        Image.new("RGB", (number + 20, 8)).save(class_folders / f"train/dog/odd_{number:02d}.png")
    for _ in range(2):  # decoding, and from the cache
        with pytest.warns(UserWarning, match="left out as asked: 12 of 28 images") as warned:
            assert len(load_images(class_folders, skip_corrupt=True)[0]) == 10
        named = str(warned[0].message).splitlines()[1:]
        assert [line.partition(":")[0].strip() for line in named[:-1]] == [
            f"train/dog/odd_{number:02d}.png" for number in range(10)
        ]
        assert named[-1] == "  … and 2 more"


def test_a_split_of_another_size_leaves_none(class_folders):
    for file in (class_folders / "test").rglob("*.png"):
        Image.new("RGB", (7, 8)).save(file)
    match = r"6 file(?s:.*)8 × 7, but the most frequent size is 8 × 6(?s:.*)No other test images are left"
    with pytest.raises(CorruptImageError, match=match):
        load_images(class_folders)


def test_images_of_many_sizes_are_sent_to_the_loader_that_takes_them(class_folders):
    for number in range(12):
        Image.new("RGB", (number + 20, 8)).save(class_folders / f"train/dog/odd_{number:02d}.png")
    with pytest.raises(CorruptImageError, match=r"8 × 20, but the most frequent size is 8 × 6") as caught:
        load_images(class_folders)
    assert "\n  … and 2 more\nSizes differ: bring all images to one size, or read" in str(caught.value)
    assert "experiments/imagenet.py" in str(caught.value)
    assert "skip" not in str(caught.value)


def test_a_link_to_nothing_is_named(class_folders):
    (class_folders / "train/dog/0001.png").unlink()
    (class_folders / "train/dog/0001.png").symlink_to("gone.png")
    with pytest.raises(CorruptImageError, match=r"1 file.*\n  train/dog/0001\.png: cannot be read"):
        load_images(class_folders)
    with pytest.warns(UserWarning, match="left out as asked: 1 of 16 images"):
        assert len(load_images(class_folders, skip_corrupt=True)[0]) == 9


def test_a_split_without_readable_images_cannot_be_skipped(class_folders):
    for file in (class_folders / "test").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(CorruptImageError, match="No other test images are left"):
        load_images(class_folders, skip_corrupt=True)


@pytest.mark.parametrize("name", [None, "pets2.tar.xz"])
def test_val_stands_for_test_where_there_is_none(class_folders, tmp_path, name):
    plain = load_images(class_folders)
    (class_folders / "test").rename(class_folders / "val")
    path = archived(class_folders, tmp_path / name) if name else class_folders
    assert all(map(equal, load_images(path), plain))
    Image.new("RGB", (7, 8)).save(class_folders / "val/dog/0001.png")
    with pytest.raises(CorruptImageError, match=r"1 file.*\n  val/dog/0001\.png: is 8 × 7"):
        load_images(class_folders)


def test_val_beside_test_is_left_alone(class_folders):
    plain = load_images(class_folders)
    (class_folders / "val/bird").mkdir(parents=True)
    (class_folders / "val/bird/1.png").write_bytes(b"nothing")
    assert all(map(equal, load_images(class_folders), plain))


@pytest.mark.parametrize("split", ["train", "test"])
def test_splits_must_hold_the_same_classes(class_folders, split):
    (class_folders / split / "bird").mkdir()
    (class_folders / split / "bird/1.png").write_bytes(b"nothing")
    match = r"Pets2/train and .*Pets2/test must hold the same class folders; only one of them has bird$"
    with pytest.raises(ValueError, match=match):
        load_images(class_folders, skip_corrupt=True)


@pytest.mark.parametrize("name", [None, "pets2.zip", "pets2.tar.xz"])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("file", [None, "notes.txt"])
def test_a_class_without_images_is_named(class_folders, tmp_path, name, split, file):
    load_images(class_folders)  # what is in the cache must not hide the new folder
    (class_folders / split / "bird").mkdir()
    if file:
        (class_folders / split / "bird" / file).touch()
    path = archived(class_folders, tmp_path / name) if name else class_folders
    with pytest.raises(ValueError, match=rf"/{split} has folders without images: bird; fill or remove them$"):
        load_images(path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_without_images_in_one_split_is_named(class_folders, split):
    for image in (class_folders / split / "cat").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match=rf"/{split} has folders without images: cat; fill or remove them$"):
        load_images(class_folders)


def test_a_class_of_which_all_images_are_left_out_stays_a_class(class_folders):
    for split in ("train", "test"):
        (class_folders / split / "bird").mkdir()
        (class_folders / split / "bird/1.png").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="left out as asked: 2 of 18 images"):
        train, test = load_images(class_folders, skip_corrupt=True)
    assert train.classes == test.classes == ("bird", "cat", "dog")
    assert train.labels.unique().tolist() == [1, 2]


def test_layouts_are_checked(class_folders, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*known: cifar10, cifar100"):
        load_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no train or test images; the layout is NAME/\{train,test\}"):
        load_images(class_folders / "train/dog")
    (tmp_path / "more/other/train/dog").mkdir(parents=True)
    class_folders.rename(tmp_path / "more/Pets2")
    Image.new("RGB", (6, 8)).save(tmp_path / "more/other/train/dog/1.png")
    with pytest.raises(ValueError, match=r"several data sets \(Pets2, other\)"):
        load_images(tmp_path / "more")
    (tmp_path / "x.tar.gz").write_bytes(b"\x1f\x8b\x08cut short")
    with pytest.raises(ValueError, match="no whole zip or tar file"):
        load_images(tmp_path / "x.tar.gz")


def test_a_tar_cut_short(class_folders, tmp_path):
    path = archived(class_folders, tmp_path / "pets.tar.xz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"pets\.tar\.xz is no whole zip or tar file.*fetch it again"):
        load_images(path)


@pytest.mark.skipif(not SHARED.is_file(), reason="the real images are not at hand")
def test_real_images_have_the_layout():
    for name, read in islice(read_files(SHARED, _in_split), 300):
        assert name.parts[:2] == ("cifar10", "test")
        assert decode_image(read()).shape == (3, 32, 32)
