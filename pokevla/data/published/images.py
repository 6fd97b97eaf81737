"""The image path of OpenVLA-OFT and VLA-Adapter, from a camera picture to the model's pixels, in numpy.

JPEG, Lanczos to the model's size, centre crop: the steps of experiments/robot/openvla_utils.py in moojink/openvla-oft
@213c5ff (the same in OpenHelix-Team/VLA-Adapter @838a36d), which uses TensorFlow. The arithmetic is TensorFlow's. Only
its JPEG decoder is another one than Pillow's: its inverse transform is less exact, and pictures differ by about one
grey level in the mean.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from pokevla.data.images.transforms import test_time_images

JPEG_QUALITY = 95
"""`tf.image.encode_jpeg`'s default, with chroma at half the resolution."""
LANCZOS_RADIUS = 3
_CHROMA_HALVED = 2  # Pillow's number for 4:2:0


@dataclass(frozen=True)
class ImagePath:
    """How a camera picture becomes the model's. The defaults are those of the published evaluations."""

    jpeg: bool = True
    """Encode and decode as JPEG first, because training pictures were JPEG (openvla_utils.py,
    resize_image_for_policy)."""
    lanczos: bool = True
    """Resize by Lanczos, then crop and resize bilinearly. False: our own way, one antialiased bilinear resampling from
    the crop (`pokevla.data.images.transforms.test_time_images`)."""
    crop_area: float = 0.9
    """Share of the area that the centre crop keeps, because training cropped at random; 1 does not crop
    (run_libero_eval.py, center_crop)."""


def published_pixels(images: np.ndarray, size: int, path: ImagePath) -> np.ndarray:
    """The model's pixels of camera images: (N, V, H, W, 3) uint8 -> (N, V, 3, size, size) float32 in [0, 1]."""
    if path.jpeg:
        images = _each(images, jpeg_round_trip)
    if not path.lanczos:
        return test_time_images(images, size, path.crop_area, "bilinear")
    resized = _each(images, lambda image: resize_lanczos(image, size))
    if path.crop_area < 1:
        resized = _each(resized, lambda image: centre_crop(image, path.crop_area))
    planes = np.ascontiguousarray(resized.transpose(0, 1, 4, 2, 3))
    return planes.astype(np.float32) / np.float32(255)  # torchvision's to_tensor


def _each(images: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    flat = [change(image) for image in images.reshape(-1, *images.shape[2:])]
    return np.stack(flat).reshape(*images.shape[:2], *flat[0].shape)


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
    """Crop (S, S, 3) uint8 to the centred square of `area` and resize it to the same size, bilinearly.

    As `tf.image.crop_and_resize`: the corners of the crop are centres of pixels, no antialiasing, all in float32. Back
    to uint8 as `tf.image.convert_image_dtype`: floor(v * 255.5).
    """
    height, width = image.shape[:2]
    side = np.float32(np.sqrt(np.float32(area)))
    pixels = image.astype(np.float32) * np.float32(1.0 / 255.0)
    pixels = _sample(pixels, _places(height, side), axis=0)
    pixels = _sample(pixels, _places(width, side), axis=1)
    return np.floor(np.clip(pixels, 0, 1) * np.float32(255.5)).astype(np.uint8)


def _places(length: int, side: np.float32) -> np.ndarray:
    """(length,) float32: source position of each pixel of the resized crop."""
    low = (np.float32(1) - side) / np.float32(2)
    high = low + side
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
