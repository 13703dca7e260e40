"""Small image files, made on the spot."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) or (H, W) uint8, as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def read_pixels(path: Path) -> torch.Tensor:
    """Return the file's pixels (H, W) or (H, W, 3), uint8."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image))
