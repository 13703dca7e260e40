from pathlib import Path

import numpy as np
import pytest

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
