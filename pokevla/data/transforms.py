"""Transforms stored images into model inputs: crop, resize, colours. Training and test time use the same functions.

Random numbers are a pure function of (seed, position, view). The crop is exact at sub-pixel level. Image and mask are
resampled once from the same crop: the image with antialiasing (PIL bilinear, as in OpenVLA-OFT), the mask by area.

Colour changes take and return planar RGB (3,H,W) float32 in [0,1], clipped. Their definitions are those of tf.image
(random_brightness, random_contrast, random_saturation, random_hue), which OpenVLA-OFT uses through dlimp; saturation
and hue are HSV operations computed without converting to HSV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pokevla.data.randomness import uniform
from pokevla.recipe.sections import AugmentConfig

PURPOSE = "augment"


@dataclass(frozen=True)
class ViewAugmentation:
    """The augmentation of one view of one sample."""

    crop_box: tuple[float, float, float, float]
    """Crop box x1, y1, x2, y2 in [0,1] of the uncropped image."""
    brightness: float = 0.0
    """Added to values in [0,1]."""
    contrast: float = 1.0
    """Factor applied to the difference from the channel mean."""
    saturation: float = 1.0
    """Factor applied to HSV saturation."""
    hue: float = 0.0
    """Hue shift in turns."""


def centre_crop_box(crop_area: float) -> tuple[float, float, float, float]:
    """The test-time crop: centred square of `crop_area` of the image, x1, y1, x2, y2 in [0,1]."""
    margin = (1.0 - math.sqrt(crop_area)) / 2.0
    return (margin, margin, 1.0 - margin, 1.0 - margin)


def draw_augmentation(config: AugmentConfig, seed: int, position: int, view: int) -> ViewAugmentation:
    """Augmentation of view number `view` of the sample at `position`: OFT's five, drawn independently per view.

    Crop: area exactly `crop_area`, aspect ratio 1, uniform location. Source: openvla-oft prismatic/vla/datasets
    (image_aug).
    """
    u = uniform(seed, PURPOSE, position, view, 6)
    side = math.sqrt(config.crop_area)
    left, top = u[0] * (1.0 - side), u[1] * (1.0 - side)
    spread = 2.0 * u - 1.0
    return ViewAugmentation(
        crop_box=(float(left), float(top), float(left + side), float(top + side)),
        brightness=float(spread[2] * config.brightness),
        contrast=float(1.0 + spread[3] * config.contrast),
        saturation=float(1.0 + spread[4] * config.saturation),
        hue=float(spread[5] * config.hue),
    )


def no_augmentation(crop_area: float) -> ViewAugmentation:
    """Centre crop without colour changes, for validation and test time."""
    return ViewAugmentation(centre_crop_box(crop_area))


def crop_image(image: Image.Image, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """Crop to `box` (relative) and resize to (3,size,size) float32 in [0,1], antialiased bilinear."""
    width, height = image.size
    pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    resized = image.resize((size, size), Image.Resampling.BILINEAR, box=pixels)
    planes = np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
    return np.multiply(planes, np.float32(1.0 / 255.0), dtype=np.float32)


def crop_mask(mask: Image.Image, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """Crop a 0/1 mask (PIL mode "1") to `box` and resize it to (size,size) float32 of 0 and 1.

    A cell is 1 if at least half of it is covered. If an object is too small for any such cell, the cells with the
    highest coverage are 1, so that a visible object never vanishes.
    """
    width, height = mask.size
    pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    coverage = np.asarray(mask.convert("L").resize((size, size), Image.Resampling.BOX, box=pixels))
    threshold = min(128, max(int(coverage.max()), 1))
    return (coverage >= threshold).astype(np.float32)


def apply_colours(image: np.ndarray, augmentation: ViewAugmentation) -> np.ndarray:
    """Brightness, contrast, saturation, hue in OFT's order on (3,H,W) float32, clipped to [0,1] after each."""
    if augmentation.brightness != 0.0:
        image = adjust_brightness(image, augmentation.brightness)
    if augmentation.contrast != 1.0:
        image = adjust_contrast(image, augmentation.contrast)
    if augmentation.saturation != 1.0:
        image = adjust_saturation(image, augmentation.saturation)
    if augmentation.hue != 0.0:
        image = adjust_hue(image, augmentation.hue)
    return image


def adjust_brightness(image: np.ndarray, delta: float) -> np.ndarray:
    """Add `delta`."""
    return np.clip(image + np.float32(delta), 0.0, 1.0)


def adjust_contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale the difference from each channel's mean by `factor`."""
    mean = image.mean(axis=(1, 2), keepdims=True)
    return np.clip((image - mean) * np.float32(factor) + mean, 0.0, 1.0)


def adjust_saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Scale HSV saturation by `factor`, clipped at 1.

    With value V = max(R,G,B) and hue fixed, each channel is V minus a term proportional to S. So V - channel is scaled,
    and S <= 1 bounds the factor by V / (V - min).
    """
    value = np.maximum(np.maximum(image[0], image[1]), image[2])
    chroma = value - np.minimum(np.minimum(image[0], image[1]), image[2])
    bound = np.divide(value, chroma, out=np.full_like(value, np.float32(factor)), where=chroma > 0)
    out = value - np.minimum(bound, np.float32(factor)) * (value - image)
    return np.clip(out, np.float32(0.0), np.float32(1.0), out=out)  # removes rounding errors only


def adjust_hue(image: np.ndarray, turns: float) -> np.ndarray:
    """Shift HSV hue by `turns` of the circle. Value and saturation are unchanged."""
    red, green, blue = image
    value = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    chroma = value - low
    inverse = np.reciprocal(np.maximum(chroma, np.float32(1e-12)))  # grey pixels: their numerators below are 0
    # Hue in sixths of the circle: 0 red, 2 green, 4 blue, measured from the largest channel.
    sixths = np.where(
        value == red,
        (green - blue) * inverse,
        np.where(value == green, (blue - red) * inverse + np.float32(2.0), (red - green) * inverse + np.float32(4.0)),
    )
    sixths += np.float32(6.0 * turns)
    sixths -= np.float32(6.0) * np.floor(sixths * np.float32(1.0 / 6.0))  # floor, not %: much faster in numpy
    out = np.empty_like(image)
    # Fraction of the chroma in each channel around the circle: a plateau of two sixths with ramps of one sixth on both
    # sides.
    np.abs(sixths - np.float32(3.0), out=out[0])
    out[0] -= np.float32(1.0)
    for channel, centre in ((1, np.float32(2.0)), (2, np.float32(4.0))):
        np.abs(sixths - centre, out=out[channel])
        np.subtract(np.float32(2.0), out[channel], out=out[channel])
    np.clip(out, np.float32(0.0), np.float32(1.0), out=out)
    out *= chroma
    out += low
    return out


def test_time_images(images: np.ndarray, image_size: int, crop_area: float) -> np.ndarray:
    """The policy's input for camera images: (N,V,H,W,3) uint8 to (N,V,3,S,S) float32 in [0,1], centre crop."""
    box = centre_crop_box(crop_area)
    out = np.empty((*images.shape[:2], 3, image_size, image_size), dtype=np.float32)
    for index in np.ndindex(*images.shape[:2]):
        out[index] = crop_image(Image.fromarray(images[index]), box, image_size)
    return out


# The name starts with "test", so pytest would collect this function in every test module that imports it.
test_time_images.__test__ = False  # type: ignore[attr-defined]
