"""Encoding of images and masks for the shards of a dataset."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

JPEG_QUALITY = 95


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """Encode an image (H,W,3) uint8 as JPEG, without chroma subsampling: colour distinguishes small objects."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def encode_mask(mask: np.ndarray) -> bytes:
    """Encode a mask (H,W), non-zero inside, as PNG with one bit per pixel."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(mask, dtype=bool)).save(buffer, "PNG")
    return buffer.getvalue()
