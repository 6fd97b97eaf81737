"""One recorded image on its way into a dataset: decoded once, made square, encoded as JPEG."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import xxhash
from PIL import Image

from pokevla.data.recordings.episode import Frame
from pokevla.data.recordings.faults import Fault
from pokevla.data.sources.aspect import Aspect, square_images
from pokevla.data.sources.images import encode_jpeg

# What Pillow raises for damaged files: SyntaxError for a broken PNG, an error of its own for too many pixels.
_UNDECODABLE = (OSError, SyntaxError, ValueError, IndexError, OverflowError, struct.error, zlib.error,
                Image.DecompressionBombError)  # fmt: skip

DEPTH_REMEDY = "Leave this camera out: name the others with --camera."


@dataclass(frozen=True)
class Prepared:
    """An image of a dataset."""

    jpeg: bytes
    size: tuple[int, int]
    """(height, width) of the source image."""
    digest: int
    """Equal for images with equal pixels."""


def prepare(frame: Frame, side: int, aspect: Aspect, quality: int, what: str) -> Prepared:
    """The image as a JPEG of `side` pixels. A JPEG of that size is decoded to check it, and passed on unchanged.

    Args:
        what: episode and view, for messages.

    Raises:
        Fault: the image cannot be decoded, or is not an RGB image.
    """
    keep = None
    if isinstance(frame, bytes):
        pixels, is_jpeg = _decoded(frame, what)
        keep = frame if is_jpeg and pixels.shape == (side, side, 3) else None
    else:
        pixels = np.ascontiguousarray(frame)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise Fault("layout", f"{what}: an image has shape {pixels.shape} and type {pixels.dtype}, not (H,W,3) uint8.")
    jpeg = keep if keep is not None else encode_jpeg(square_images(pixels[None], side, aspect)[0], quality)
    return Prepared(jpeg, (pixels.shape[0], pixels.shape[1]), xxhash.xxh3_64_intdigest(pixels.data))


def _decoded(content: bytes, what: str) -> tuple[np.ndarray, bool]:
    """Pixels (H,W,3) of a JPEG or PNG, and whether it is a colour JPEG."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            if image.mode.startswith(("I", "F")):
                raise Fault("layout", f"{what}: an image has values of {image.mode}, as depth maps have; policies see "
                            "colours.", DEPTH_REMEDY)  # fmt: skip
            is_jpeg = image.format == "JPEG" and image.mode == "RGB"
            return np.asarray(image.convert("RGB")), is_jpeg
    except _UNDECODABLE as error:
        raise Fault("unreadable", f"{what}: an image cannot be decoded ({error}).") from error
