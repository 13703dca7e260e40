from pathlib import Path

import numpy as np
import pytest
from pictures import write_image

from mgic_geo.datasets.shapes import SHAPES, make_shape


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    """A folder in ModelNet's layout: two classes, three training and two test meshes each."""
    root = tmp_path / "Tiny2"
    for name in ("cone", "box"):
        for split, count in (("train", 3), ("test", 2)):
            folder = root / name / split
            folder.mkdir(parents=True)
            for number in range(count):
                rng = np.random.default_rng([list(SHAPES).index(name), number, split == "train"])
                make_shape(name, rng).export(folder / f"{name}_{number:04d}.off")
    return root


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Class folders of 8 × 6 images: five training and three test images of each of two classes."""
    root, rng = tmp_path / "Pets2", np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 3)):
        for label in ("dog", "cat"):
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)
                write_image(root / split / label / f"{number:04d}.png", pixels)
    return root
