"""Decoding images and label masks, with errors that say what is wrong."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

# Part of the names of caches: raise it when files would give other pixels, or other errors, than before.
EDITION = 3

SHOWN = 10  # problems that a message names, of hundreds

REMEDY = "Replace them, or leave them out with skip_corrupt=True (--skip-corrupt on the command line)."

# Told from other problems by this text, since caches keep problems as text.
_ODD_SIZE = "but the most frequent size is"

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
    """Images or masks that cannot be used; the message says which, and why.

    Attributes:
        problems: all of them, a line each, where the message names ten of many.
    """

    problems: tuple[str, ...] = ()


def decode_image(data: bytes) -> Tensor:
    """Decode an image file to colours (3, H, W) uint8.

    Grey becomes equal colours, transparency is dropped, of 16 bits the upper 8 are kept, and the image is
    turned upright, as its EXIF says.

    Raises:
        CorruptImageError: the file is empty, cut short, no image, or has pixels of 32 bits, whose range only
            who made them knows.
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
    """Return an image of more bits a pixel in 8: Pillow's own conversion makes all above 255 white."""
    # Pillow gives 16-bit PGM, and in older versions PNG too, as integers of 32 bits, from 0 to 65535.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.array(image) // 256).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise CorruptImageError(
            f"holds {image.mode} pixels (32 bit); save as 8 bit (mode L or RGB), 0 black and 255 white"
        )
    return image


def lines(problems: Mapping[str, str]) -> list[str]:
    """Return "file: problem" for each file with a problem, sorted."""
    return [f"{name}: {why}" for name, why in sorted(problems.items())]


def odd_size(shape: Sequence[int], usual: Sequence[int]) -> str:
    """Return what is wrong with an image that is not of the ``usual`` size, (…, H, W) both."""
    return f"is {shape[-2]} × {shape[-1]}, {_ODD_SIZE} {usual[-2]} × {usual[-1]}"


def shown(problems: Sequence[str]) -> list[str]:
    """Return the first problems, and how many more there are."""
    more = len(problems) - SHOWN
    return [*problems[:SHOWN], *([f"… and {more} more"] if more > 0 else [])]


def settle(
    problems: Sequence[str],
    total: int,
    where: object,
    skip_corrupt: bool,
    one_size: str = "bring all images to one size",
) -> None:
    """Stop because of problems, or say what is left out.

    Args:
        problems: what is wrong, a line an image.
        total: how many images there are, those with problems included.
        where: what the data set is called in messages.
        skip_corrupt: leave them out. The warning points to the caller of the function that calls this one.
        one_size: what to do where sizes differ.

    Raises:
        CorruptImageError: there are problems, and they are not to be skipped.
    """
    if problems and not skip_corrupt:
        odd = sum(_ODD_SIZE in problem for problem in problems)
        remedies = [f"Sizes differ: {one_size}."] if odd else []
        # Where many differ there is nothing wrong with them, and what is left would be a poor data set.
        remedies += [REMEDY] if odd * 10 <= total else []
        raise corrupt(problems, where, "\n".join(remedies))
    if problems:
        head = f"left out as asked: {len(problems)} of {total} images of {where}"
        warnings.warn("\n  ".join([head, *shown(problems)]), stacklevel=3)


def corrupt(problems: Sequence[str], where: object, remedy: str) -> CorruptImageError:
    """Return the error whose message names ``problems`` of the data set ``where`` and the remedy."""
    head = f"{len(problems)} file(s) of {where} cannot be used:"
    error = CorruptImageError("\n  ".join([head, *shown(problems)]) + f"\n{remedy}")
    error.problems = tuple(problems)
    return error
