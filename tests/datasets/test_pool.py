"""Images of any data set, one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import write_image

from mgic_geo.datasets import CorruptImageError, fit_size, open_images


def write(path: Path, shade: int, height: int = 6, width: int = 6) -> None:
    write_image(path, np.full((height, width, 3), shade, np.uint8))


def test_a_flat_folder_of_any_sizes(tmp_path: Path) -> None:
    write(tmp_path / "b.png", 2, 8, 4)
    write(tmp_path / "a.png", 1)
    write(tmp_path / "deeper" / "c.jpg", 9)
    (tmp_path / ".a.png").write_bytes(b"a shadow file")
    write(tmp_path / ".cache" / "d.png", 4)
    (tmp_path / "notes.txt").write_text("no image")
    pool = open_images(tmp_path)
    assert pool.names == ("a.png", "b.png", "deeper/c.jpg")
    assert pool[1].shape == (3, 8, 4)
    assert int(pool[0].max()) == 1


@pytest.mark.parametrize("split", ["val", "test"])
def test_images_that_were_not_trained_on(tmp_path: Path, split: str) -> None:
    write(tmp_path / "train" / "cat" / "0.png", 1)
    write(tmp_path / split / "cat" / "1.png", 2)
    write(tmp_path / split / "dog" / "2.png", 3)
    assert open_images(str(tmp_path)).names == ("cat/1.png", "dog/2.png")


def test_an_archive_gives_its_test_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    monkeypatch.setenv("MGIC_DATA", str(tmp_path / "cache"))
    for split, shade in (("train", 1), ("test", 200)):
        write(tmp_path / "Pets" / split / "cat" / "0.png", shade)
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for file in sorted((tmp_path / "Pets").rglob("*.png")):
            archive.write(file, file.relative_to(tmp_path))
    pool = open_images(tmp_path / "pets.zip")
    assert len(pool) == 1
    assert int(pool[0].min()) == 200


def test_drawing_depends_on_the_seed_only(tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path / f"{number}.png", number)
    pool = open_images(tmp_path)
    drawn, again, other = (pool.draw(6, seed) for seed in (0, 0, 1))
    assert drawn.names == again.names != other.names
    assert len(set(drawn.names)) == 6
    assert [int(drawn[i].max()) for i in range(6)] == [int(name[0]) for name in drawn.names]
    part = drawn.subset([4, 2])
    assert part.names == (drawn.names[4], drawn.names[2])
    batches = list(drawn.batches(4, (6, 6)))
    assert [batch.shape for batch in batches] == [(4, 3, 6, 6), (2, 3, 6, 6)]
    assert torch.equal(batches[1][0], drawn[4])
    with pytest.raises(ValueError, match="10 images were asked for, but there are 9"):
        pool.draw(10, 0)


def test_an_image_is_fitted_unless_it_fits() -> None:
    image = torch.arange(3 * 8 * 8).view(3, 8, 8).byte()
    assert fit_size(image, (8, 8)) is image
    assert fit_size(torch.zeros(3, 300, 500).byte(), (224, 224)).shape == (3, 224, 224)
    assert fit_size(torch.zeros(3, 20, 20).byte(), (24, 32)).shape == (3, 24, 32)


def test_errors_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MGIC_DATA", str(tmp_path / "cache"))
    write(tmp_path / "images" / "a.png", 1)
    (tmp_path / "images" / "b.png").write_bytes(b"")
    with pytest.raises(CorruptImageError, match=r"b\.png is empty; replace it"):
        open_images(tmp_path / "images")[1]
    with pytest.raises(FileNotFoundError, match="gone"):
        open_images(tmp_path / "gone")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="no train or test images"):
        open_images(tmp_path / "nothing")
