import hashlib
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mgic_geo.datasets import DownloadError, Images, cifar10, load_images


def equal(a: Images, b: Images) -> bool:
    same = torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
    return same and (a.names, a.classes) == (b.names, b.classes)


@pytest.fixture(autouse=True)
def default_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MGIC_DATA", str(tmp_path / "default"))


def test_the_cache_is_read_and_a_stale_one_is_not(class_folders, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = load_images(class_folders, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr("mgic_geo.datasets.class_folders.decode_image", None)
        again = load_images(class_folders, cache=cache)
    assert all(map(equal, first, again))
    (class_folders / "train/dog/0004.png").unlink()
    assert len(load_images(class_folders, cache=cache)[0]) == 9
    assert len(list(cache.glob("*.h5"))) == 2


def test_a_kill_while_writing_leaves_nothing_that_is_read(class_folders, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            load_images(class_folders, cache=cache)
    assert not list(cache.glob("*.h5"))
    assert len(load_images(class_folders, cache=cache)[0]) == 10


def official_files(folder: Path, monkeypatch) -> bytes:
    """Files like the official ones, but small, at ``folder``; returns an archive of them."""
    from torchvision.datasets import CIFAR10

    base, rng = folder / CIFAR10.base_folder, np.random.default_rng(0)
    base.mkdir(parents=True)

    def write(name: str, content: dict) -> list[str]:
        data = pickle.dumps(content)
        (base / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(name: str, count: int) -> list[str]:
        pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        return write(name, {"data": pixels, "labels": [number % 2 for number in range(count)]})

    monkeypatch.setattr(CIFAR10, "train_list", [batch("data_batch_1", 3), batch("data_batch_2", 3)])
    monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch", 2)])
    name, md5 = write("batches.meta", {"label_names": ["ant", "bee"]})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})
    archive = folder / "made.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(base, base.name)
    data = archive.read_bytes()
    archive.unlink()
    md5 = hashlib.md5(data).hexdigest()
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5)
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")  # a closed port
    monkeypatch.setitem(cifar10.OFFICIAL, "cifar10", (CIFAR10.base_folder, md5))
    return data


def test_official_files(tmp_path, monkeypatch):
    data, cache = official_files(tmp_path / "files", monkeypatch), tmp_path / "cache"
    with pytest.raises(DownloadError, match=r"cannot download .*put it at .*cache.*cifar-10-python\.tar\.gz"):
        load_images("cifar10", cache=cache)
    (cache / "cifar-10-python.tar.gz").write_bytes(data)
    train, test = load_images("cifar10", cache=cache)
    assert train.images.shape == (6, 3, 32, 32)
    assert train.labels.tolist() == [0, 1, 0, 0, 1, 0]
    assert train.classes == test.classes == ("ant", "bee")
    pixels = pickle.loads((tmp_path / "files/cifar-10-batches-py/data_batch_1").read_bytes())["data"]
    assert np.array_equal(train.images[1].numpy(), pixels[1].reshape(3, 32, 32))
    unpacked = load_images(tmp_path / "files", cache=cache)
    assert all(map(equal, (train, test), unpacked))
    (tmp_path / "files/cifar-10-batches-py/test_batch").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="not complete, or not the official files"):
        load_images(tmp_path / "files", cache=cache)


def test_the_published_checksums():
    from torchvision import datasets

    for name, kind in (("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)):
        assert cifar10.OFFICIAL[name] == (kind.base_folder, kind.tgz_md5)
