"""A few images of any data set, as they lie there: for looking at what a network makes of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms import v2

from .cifar10 import OFFICIAL, load_images
from .decode import IMAGE_SUFFIXES, decode_image, is_image
from .files import known_suffix, list_files, read_bytes
from .problems import CorruptImageError


@dataclass(frozen=True)
class ImagePool:
    """S images of any size, read one by one.

    Args:
        names: S names, for messages.
        read: Returns image i of the S as (3, H, W) uint8.
    """

    names: tuple[str, ...]
    read: Callable[[int], Tensor]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        """Image ``index`` (3, H, W) uint8.

        Raises:
            CorruptImageError: If it cannot be read; the message names it.
        """
        try:
            return self.read(index)
        except CorruptImageError as error:
            raise CorruptImageError(f"{self.names[index]} {error}; replace it or take it away") from error

    def subset(self, indices: Sequence[int]) -> ImagePool:
        """The images at ``indices``, in that order."""
        return ImagePool(tuple(self.names[i] for i in indices), lambda index: self.read(indices[index]))

    def draw(self, count: int, seed: int) -> ImagePool:
        """``count`` different images, drawn and ordered at random by ``seed``.

        Raises:
            ValueError: If there are fewer.
        """
        if count > len(self):
            raise ValueError(f"{count} images were asked for, but there are {len(self)}; ask for fewer")
        generator = torch.Generator().manual_seed(seed)
        return self.subset(torch.randperm(len(self), generator=generator)[:count].tolist())

    def batches(self, batch_size: int, size: tuple[int, int]) -> Iterator[Tensor]:
        """Give all images in batches (B, 3, H, W) uint8, each brought to ``size`` by :func:`fit_size`."""
        for begin in range(0, len(self), batch_size):
            end = min(begin + batch_size, len(self))
            yield torch.stack([fit_size(self[index], size) for index in range(begin, end)])


def open_images(data: str | os.PathLike[str]) -> ImagePool:
    """Open the images of a data set without regard to their classes.

    Args:
        data: A folder of image files, at any depth: of its ``val`` or ``test`` where it has one of these, so
            that a network trained on the rest has not seen them; or whatever else :func:`load_images` takes,
            of which the test images count.

    Raises:
        FileNotFoundError: If there is nothing at ``data``.
        ValueError: If it holds no images.
    """
    folder = Path(data)
    if os.fspath(data) not in OFFICIAL and folder.is_dir():
        part = next((folder / name for name in ("val", "test") if (folder / name).is_dir()), folder)
        names = tuple(name for name in list_files(part) if is_image(name))
        if names:
            return ImagePool(names, lambda index: decode_image(read_bytes(part / names[index])))
    _, test = load_images(data)
    return ImagePool(test.names, lambda index: test.images[index])


def read_image(path: Path) -> Tensor:
    """The image in a file (3, H, W) uint8.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no image, or a corrupt one; the message does not name it.
    """
    known_suffix(path, IMAGE_SUFFIXES)
    return decode_image(path.read_bytes())


def fit_size(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring an image (3, H, W) to ``size``: its shorter side to 8/7 of that, then the centre is cut out.

    An image of that size stays as it is.
    """
    if image.shape[1:] == size:
        return image
    larger = v2.functional.resize(image, [max(size) * 8 // 7], antialias=True)
    return v2.functional.center_crop(larger, list(size))
