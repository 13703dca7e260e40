"""Decoding images and label masks, with errors that say what is wrong."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

REMEDY = "Replace them, or leave them out with skip_corrupt=True (--skip-corrupt on the command line)."

# What Pillow's decoders raise on files they cannot make sense of.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class CorruptImageError(ValueError):
    """Images or masks that cannot be used; the message says which, and why."""


def decode_image(data: bytes) -> Tensor:
    """Decode an image file to colours (3, H, W) uint8; grey becomes equal colours, transparency is dropped.

    Raises:
        CorruptImageError: the file is empty, cut short, or no image.
    """
    return _decode(data, "RGB").permute(2, 0, 1).contiguous()


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        CorruptImageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptImageError(f"cannot be read ({error})") from error


def decode_mask(data: bytes) -> Tensor:
    """Decode a mask file to labels (H, W) uint8: the grey values, or the places in the palette.

    Raises:
        CorruptImageError: the file cannot be decoded, or has more than one value in a pixel.
    """
    return _decode(data, None)


def _decode(data: bytes, mode: str | None) -> Tensor:
    if not data:
        raise CorruptImageError("is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            if mode is None and image.mode not in ("L", "P"):
                raise CorruptImageError(
                    f"holds {image.mode} pixels; a mask must hold one 8-bit label a pixel (mode L or P)"
                )
            image.load()
            if mode is not None and image.mode != mode:
                # By way of RGBA: a palette with transparency has no direct way that is free of warnings.
                image = image.convert("RGBA").convert(mode) if image.mode == "P" else image.convert(mode)
            return torch.from_numpy(np.array(image))
    except CorruptImageError:
        raise
    except _DECODER_ERRORS as error:
        raise CorruptImageError(f"cannot be decoded ({type(error).__name__}: {error})") from error


def lines(problems: Mapping[str, str]) -> list[str]:
    """Return "file: problem" for each file with a problem, sorted."""
    return [f"{name}: {why}" for name, why in sorted(problems.items())]


def corrupt(problems: Sequence[str], where: object, remedy: str) -> CorruptImageError:
    """Return the error whose message lists all ``problems`` of the data set ``where``, with the remedy."""
    return CorruptImageError(
        "\n  ".join([f"{len(problems)} file(s) of {where} cannot be used:", *problems]) + f"\n{remedy}"
    )
