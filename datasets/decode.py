"""Decoding images and label masks, with errors that say what is wrong."""

from __future__ import annotations

import io
import re
import struct
import zlib
from contextlib import suppress

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .problems import CorruptImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

# Part of the names of caches: raise it when files would give other pixels, or other errors, than before.
EDITION = 3

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


def is_image(name: str) -> bool:
    """Tell whether the file ``name`` is an image, by its suffix."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def decode_image(data: bytes) -> Tensor:
    """Decode an image file to colours (3, H, W) uint8.

    Grey becomes equal colours, transparency is dropped, of 16 bits the upper 8 are kept, and the image is
    turned upright, as its EXIF says.

    Raises:
        CorruptImageError: If the file is empty, cut short, no image, or has pixels of 32 bits, whose range
            only who made them knows.
    """
    return _decode(data, "RGB").permute(2, 0, 1).contiguous()


def decode_mask(data: bytes) -> Tensor:
    """Decode a mask file to labels (H, W) uint8: the grey values, or the places in the palette.

    Raises:
        CorruptImageError: If the file cannot be decoded, or has more than one value in a pixel.
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
            with suppress(*_DECODER_ERRORS):  # of a broken EXIF, which says nothing about the pixels
                ImageOps.exif_transpose(image, in_place=True)
            if mode is not None and image.mode != mode:
                image = _eight_bits(image)
                # By way of RGBA: a palette with transparency has no direct way that is free of warnings.
                image = image.convert("RGBA").convert(mode) if image.mode == "P" else image.convert(mode)
            return torch.from_numpy(np.array(image))
    except CorruptImageError:
        raise
    except _DECODER_ERRORS as error:
        # Pillow names what it was given, which is no file here: "cannot identify image file <_io.BytesIO …>".
        text = re.sub(r" <_io\.BytesIO[^>]*>", "", f"{type(error).__name__}: {error}")
        raise CorruptImageError(f"cannot be decoded ({text})") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image of more bits a pixel in 8: Pillow's own conversion makes all above 255 white."""
    # Pillow gives 16-bit PGM, and in older versions PNG too, as integers of 32 bits, from 0 to 65535.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.array(image) // 256).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise CorruptImageError(
            f"holds {image.mode} pixels (32 bit); save as 8 bit (mode L or RGB), 0 black and 255 white"
        )
    return image
