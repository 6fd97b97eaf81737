"""Decodes the stored images and masks of samples."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pyarrow as pa
import simplejpeg
from PIL import Image, UnidentifiedImageError

from pokevla.errors import DamagedDataError

# What Pillow raises for damaged files: SyntaxError for a broken PNG, an error of its own for too many pixels.
_UNDECODABLE = (OSError, SyntaxError, ValueError, IndexError, OverflowError, struct.error, zlib.error,
                Image.DecompressionBombError)  # fmt: skip
_SAME_AS_PILLOW = ("YCbCr", "Gray")
"""Colour spaces of JPEG files from which simplejpeg and Pillow make the same RGB pixels."""
_START = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0dIHDR"
_HEADER = struct.Struct(">II5sII4s")
"""Width, height, form and checksum of the header, then size and name of the second chunk."""
_ONE_BIT = b"\x01\0\0\0\0"
"""One bit of grey per pixel, not interlaced."""
_DATA = len(_START) + _HEADER.size
_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_BYTES = 4
"""Pillow keeps an RGB pixel in four bytes."""
_REDUCTIONS = (8, 4, 2)
"""Factors by which libjpeg-turbo reduces an image while it decodes, and takes less time."""


def decode_pixels(payload: bytes, key: str, at_least: float | None = None) -> np.ndarray:
    """Decode a stored JPEG to (H,W,4) uint8, red, green, blue and a filling, as Pillow keeps an image; or (H,W,3).

    simplejpeg takes less time than Pillow and gives the same pixels: both call libjpeg-turbo with its exact inverse
    transform. Pillow decodes other colour spaces, and decides about files that simplejpeg refuses.

    With `at_least`, an image whose sides both have twice as many pixels or more is reduced to 1/2, 1/4 or 1/8 by the
    decoder, so that neither side has fewer than `at_least` (Pillow's `Image.draft`).

    Raises:
        DamagedDataError: it cannot be decoded. Names the sample.
    """
    pixels = _decode_fast(payload, at_least)
    return pixels if pixels is not None else np.asarray(_decode(payload, key, "JPEG"))


def decode_image(payload: bytes, key: str, at_least: float | None = None) -> Image.Image:
    """`decode_pixels` as an RGB image, which is read-only: change a copy."""
    return as_image(decode_pixels(payload, key, at_least))


def as_image(pixels: np.ndarray) -> Image.Image:
    """(H,W,4) or (H,W,3) uint8 as an RGB image, the former without a copy where Pillow keeps images in one piece."""
    height, width, channels = pixels.shape
    if channels != _BYTES:
        return Image.fromarray(pixels)
    values = pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), _BYTES)
    return Image.fromarrow(values, "RGB", (width, height))


def decode_mask(payload: bytes, key: str) -> Image.Image:
    """Decode a stored mask as an image of mode "1". Raises DamagedDataError, naming the sample, if that fails."""
    mask = _decode_bits(payload)
    return mask if mask is not None else _decode(payload, key, "PNG")


def _decode_bits(payload: bytes) -> Image.Image | None:
    """A PNG of one bit per pixel in the form in which Pillow writes it, or None for any other file.

    Pillow's decoder alone takes a fifth of the time that its reader of files takes, which is made for all kinds of PNG.
    """
    if len(payload) < _DATA + len(_END) or payload[: len(_START)] != _START:
        return None
    width, height, form, header_sum, size, name = _HEADER.unpack_from(payload, len(_START))
    end = _DATA + size
    if form != _ONE_BIT or name != b"IDAT" or not 0 < width * height <= (Image.MAX_IMAGE_PIXELS or 0):
        return None
    if payload[end + 4 :] != _END or zlib.crc32(payload[12:29]) != header_sum:
        return None
    if zlib.crc32(payload[_DATA - 4 : end]).to_bytes(4) != payload[end : end + 4]:
        return None
    try:
        return Image.frombytes("1", (width, height), payload[_DATA:end], "zip", "1", False)
    except _UNDECODABLE:
        return None


def _decode_fast(payload: bytes, at_least: float | None) -> np.ndarray | None:
    """(H,W,4) uint8, or None if Pillow has to decode it."""
    try:
        header = simplejpeg.decode_jpeg_header(payload)
        height, width, colours = int(header[0]), int(header[1]), header[2]
        if colours not in _SAME_AS_PILLOW or height * width > (Image.MAX_IMAGE_PIXELS or 0):
            return None
        smaller = _reduced(height, width, at_least)
        return simplejpeg.decode_jpeg(payload, "RGBA", min_height=smaller[0], min_width=smaller[1])
    except ValueError:
        return None


def _reduced(height: int, width: int, at_least: float | None) -> tuple[int, int]:
    """Height and width to ask the decoder for; 0 and 0 for the whole size."""
    if at_least is None:
        return 0, 0
    for factor in _REDUCTIONS:
        sides = -(-height // factor), -(-width // factor)  # libjpeg rounds up
        if min(sides) >= at_least:
            return sides
    return 0, 0


def _decode(payload: bytes, key: str, form: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(payload), formats=(form,))
        image.load()
    except _UNDECODABLE as error:
        # Pillow's own message names an object in memory.
        reason = f"it is no {form}" if isinstance(error, UnidentifiedImageError) else error
        raise DamagedDataError(f"sample {key} has an image that cannot be decoded ({reason}).") from error
    mode = "RGB" if form == "JPEG" else "1"
    return image if image.mode == mode else image.convert(mode)
