"""TensorFlow's JPEG, Lanczos and bilinear crop in numpy: how OpenVLA-OFT and VLA-Adapter prepare pictures.

The steps of experiments/robot/openvla_utils.py in moojink/openvla-oft @213c5ff (the same in
OpenHelix-Team/VLA-Adapter @838a36d), and of their training (prismatic/vla/datasets, with dlimp's augmentation). Only
the JPEG decoder is another one than Pillow's: TensorFlow's inverse transform is less exact, and pictures differ by
about one grey level in the mean.
"""

from __future__ import annotations

import io
import math
from functools import lru_cache

import numpy as np
from PIL import Image

JPEG_QUALITY = 95
"""`tf.image.encode_jpeg`'s default, with chroma at half the resolution."""
LANCZOS_RADIUS = 3
_CHROMA_HALVED = 2  # Pillow's number for 4:2:0

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in [0, 1]."""


def crop_lanczos(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Resize (H, W, 3) uint8 to (size, size) by Lanczos, then crop to `box`, which is resized to `size` bilinearly."""
    resized = resize_lanczos(image, size)
    return resized if box == (0.0, 0.0, 1.0, 1.0) else crop_and_resize(resized, box)


def openvla_oft_pixels(image: np.ndarray, size: int, crop_area: float, *, jpeg: bool = True) -> np.ndarray:
    """A camera picture as OpenVLA-OFT's model sees it at test time: (H, W, 3) uint8 -> (3, size, size) float32 in
    [0, 1]. JPEG, Lanczos, centre crop of `crop_area` (1: none), bilinear."""
    resized = resize_lanczos(jpeg_round_trip(image) if jpeg else image, size)
    cropped = centre_crop(resized, crop_area) if crop_area < 1 else resized
    return cropped.transpose(2, 0, 1).astype(np.float32) / np.float32(255)  # torchvision's to_tensor


def jpeg_round_trip(image: np.ndarray) -> np.ndarray:
    """Encode and decode (H, W, 3) uint8 as `tf.image.encode_jpeg` would."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=_CHROMA_HALVED)
    return np.asarray(Image.open(stream).convert("RGB"))


def resize_lanczos(image: np.ndarray, size: int) -> np.ndarray:
    """`tf.image.resize(..., "lanczos3", antialias=True)`, rounded: (H, W, 3) uint8 -> (size, size, 3) uint8.

    Pillow's Lanczos has the same weights in whole numbers and rounds between its two passes.
    """
    if image.shape[:2] == (size, size):  # TensorFlow returns it unchanged
        return image
    rows, columns = (lanczos_weights(length, size) for length in image.shape[:2])
    pixels = image.astype(np.float32)
    high = (rows @ pixels.reshape(image.shape[0], -1)).reshape(size, image.shape[1], 3)
    resized = np.einsum("xw,ywc->yxc", columns, high, optimize=True)
    return np.clip(np.round(resized), 0, 255).astype(np.uint8)


@lru_cache(maxsize=8)
def lanczos_weights(length: int, size: int) -> np.ndarray:
    """(size, length) float32: weight of each source pixel in each target pixel; rows sum to 1.

    Centres are at half pixels. When the image shrinks, the kernel is widened by the factor (antialiasing). Source:
    tensorflow/core/kernels/image/scale_and_translate_op.cc, ComputeSpansCore.
    """
    ratio = length / size
    widening = max(ratio, 1.0)
    distance = np.arange(length)[None] + 0.5 - (np.arange(size)[:, None] + 0.5) * ratio  # source pixels
    x = np.abs(distance / widening)
    inside = x <= LANCZOS_RADIUS
    with np.errstate(divide="ignore", invalid="ignore"):
        value = LANCZOS_RADIUS * np.sin(math.pi * x) * np.sin(math.pi * x / LANCZOS_RADIUS) / (math.pi * x) ** 2
    value = np.where(inside, np.where(x <= 1e-3, 1.0, value), 0.0)
    return (value / value.sum(axis=1, keepdims=True)).astype(np.float32)


def centre_crop(image: np.ndarray, area: float) -> np.ndarray:
    """`crop_and_resize` to the centred square of `area`, with the rounding of the published evaluation."""
    side = np.float32(np.sqrt(np.float32(area)))
    low = (np.float32(1) - side) / np.float32(2)
    return _crop_and_resize(image, low, low, low + side, low + side)


def crop_and_resize(image: np.ndarray, box: Box) -> np.ndarray:
    """Crop (H, W, 3) uint8 to `box` and resize it to the same size, bilinearly.

    As `tf.image.crop_and_resize`: the corners of the crop are centres of pixels, no antialiasing, all in float32. Back
    to uint8 as `tf.image.convert_image_dtype`: floor(v * 255.5).
    """
    x1, y1, x2, y2 = map(np.float32, box)
    return _crop_and_resize(image, x1, y1, x2, y2)


def _crop_and_resize(image: np.ndarray, x1: np.float32, y1: np.float32, x2: np.float32, y2: np.float32) -> np.ndarray:
    height, width = image.shape[:2]
    pixels = image.astype(np.float32) * np.float32(1.0 / 255.0)
    pixels = _sample(pixels, _places(height, y1, y2), axis=0)
    pixels = _sample(pixels, _places(width, x1, x2), axis=1)
    return np.floor(np.clip(pixels, 0, 1) * np.float32(255.5)).astype(np.uint8)


def _places(length: int, low: np.float32, high: np.float32) -> np.ndarray:
    """(length,) float32: source position of each pixel of the resized crop."""
    step = (high - low) * np.float32(length - 1) / np.float32(max(length - 1, 1))
    return low * np.float32(length - 1) + np.arange(length, dtype=np.float32) * step


def _sample(pixels: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation along an axis."""
    below, above = np.floor(places).astype(int), np.ceil(places).astype(int)
    shape = [1, 1, 1]
    shape[axis] = -1
    weight = (places - np.floor(places)).astype(np.float32).reshape(shape)
    low, high = pixels.take(below, axis), pixels.take(above, axis)
    return low + (high - low) * weight
