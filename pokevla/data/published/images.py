"""The image path of OpenVLA-OFT and VLA-Adapter, from a camera picture to the model's pixels.

JPEG, Lanczos to the model's size, centre crop: the steps of experiments/robot/openvla_utils.py in moojink/openvla-oft
@213c5ff (the same in OpenHelix-Team/VLA-Adapter @838a36d); the arithmetic is in `tensorflow_resampling`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pokevla.data.images.tensorflow_resampling import jpeg_round_trip, openvla_oft_pixels
from pokevla.data.images.transforms import test_time_images


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
    if not path.lanczos:
        if path.jpeg:
            images = np.stack([jpeg_round_trip(image) for image in _flat(images)]).reshape(images.shape)
        return test_time_images(images, size, path.crop_area, "bilinear")
    pixels = [openvla_oft_pixels(image, size, path.crop_area, jpeg=path.jpeg) for image in _flat(images)]
    return np.stack(pixels).reshape(*images.shape[:2], 3, size, size)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, *images.shape[2:])
