"""Decoding single images, of any depth."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin

from mgic_geo.datasets import CorruptImageError
from mgic_geo.datasets.decode import decode_image, decode_mask

RAMP = np.arange(255, 65536 - 255, 255, dtype=np.uint16).reshape(8, 32)  # 0x00ff, 0x01fe, … 0xff00
EIGHT = torch.arange(256).view(8, 32).byte()


def encoded(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "order"), [("PNG", "<u2"), ("PPM", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")]
)
def test_of_16_bits_the_upper_8_are_kept(kind: str, order: str) -> None:
    image = decode_image(encoded(RAMP.astype(order), kind))
    assert torch.equal(image, EIGHT.expand(3, -1, -1))


def test_a_png_of_16_bits_as_older_versions_of_pillow_open_it(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(RAMP, "PNG")
    monkeypatch.setitem(PngImagePlugin._MODES, (16, 0), ("I", "I;16B"))
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "I"
    assert torch.equal(decode_image(data), EIGHT.expand(3, -1, -1))


def test_images_and_masks_are_turned_upright() -> None:
    pixels, exif = EIGHT.numpy(), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned a quarter, clockwise
    for kind in ("PNG", "TIFF"):
        data = encoded(pixels, kind, exif=exif)
        assert torch.equal(decode_mask(data), EIGHT.rot90(-1))
        assert torch.equal(decode_image(data), EIGHT.rot90(-1).expand(3, -1, -1))
    data = encoded(pixels, "PNG", exif=b"Exif\0\0no such thing")
    assert torch.equal(decode_image(data), EIGHT.expand(3, -1, -1))


@pytest.mark.parametrize(("kind", "mode"), [(np.int32, "I"), (np.float32, "F")])
def test_pixels_of_32_bits_have_no_known_range(kind: type, mode: str) -> None:
    data = encoded(RAMP.astype(kind), "TIFF")
    with pytest.raises(CorruptImageError, match=rf"^holds {mode} pixels \(32 bit\); save as 8 bit"):
        decode_image(data)


def test_a_mask_of_16_bits_is_refused() -> None:
    with pytest.raises(CorruptImageError, match="holds I;16 pixels; a mask must hold one 8-bit label"):
        decode_mask(encoded(RAMP, "PNG"))


def test_messages_name_no_object_in_memory() -> None:
    with pytest.raises(CorruptImageError) as caught:
        decode_image(b"nothing")
    assert str(caught.value) == "cannot be decoded (UnidentifiedImageError: cannot identify image file)"
