"""Transforms stored images into model inputs: crop and resize. Training and test time use the same functions.

Random numbers are a pure function of (seed, position, view). The crop is exact at sub-pixel level. Image and mask are
resampled from the same crop: the image once with antialiasing (PIL bilinear, or bicubic as in Prismatic), or twice as
in OpenVLA-OFT; the mask by area. The filters of torch take less time, and their crops begin and end at whole pixels.
Colours are changed on the device (pokevla.data.images.pixels).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch.nn.functional import interpolate

from pokevla.data.images.decoding import as_image
from pokevla.data.images.tensorflow_resampling import crop_lanczos, openvla_oft_pixels
from pokevla.data.randomness import uniform
from pokevla.errors import DataError
from pokevla.recipe.sections import AugmentConfig

PURPOSE = "augment"
_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
"""Pillow antialiases both when it shrinks an image."""
_TORCH = {"bilinear_torch": "bilinear", "bicubic_torch": "bicubic"}
"""The same filters in torch's 8-bit arithmetic, as torchvision's `Resize` of a uint8 image with `antialias=True`. From
the same crop they differ from Pillow's by 1 to 4 of 255 in one pixel of a hundred, and take a third of the time."""
OPENVLA_OFT = "openvla_oft"
"""Lanczos to the model's size, then a bilinear crop, in TensorFlow's arithmetic; camera pictures are JPEG first."""
_ONE_PIECE = 1 << 20
"""Pixels of an image that Pillow surely keeps in one piece of memory."""
FILTERS = (*_PILLOW, *_TORCH, OPENVLA_OFT)
"""Values of `data.image_filter`."""


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
    u = uniform(seed, PURPOSE, position, view, 6).tolist()  # Python's floats are faster one by one
    side = math.sqrt(config.crop_area)
    left, top = u[0] * (1.0 - side), u[1] * (1.0 - side)
    return ViewAugmentation(
        crop_box=(left, top, left + side, top + side),
        brightness=(2.0 * u[2] - 1.0) * config.brightness,
        contrast=1.0 + (2.0 * u[3] - 1.0) * config.contrast,
        saturation=1.0 + (2.0 * u[4] - 1.0) * config.saturation,
        hue=(2.0 * u[5] - 1.0) * config.hue,
    )


def no_augmentation(crop_area: float) -> ViewAugmentation:
    """Centre crop without colour changes, for validation and test time."""
    return ViewAugmentation(centre_crop_box(crop_area))


def image_filter_of(config: Mapping[str, Any]) -> str:
    """`data.image_filter` with which an exported model was trained. Exports from before that field used bilinear.

    Raises:
        DataError: the config.json names another filter.
    """
    name = config.get("image_filter", "bilinear")
    if name not in FILTERS:
        raise DataError(f"config.json names the image filter {name!r}.", f"Known: {', '.join(FILTERS)}.")
    return name


def cut_box(
    box: tuple[float, float, float, float], size: tuple[int, int], image_filter: str
) -> tuple[float, float, float, float]:
    """The box, x1, y1, x2, y2 in [0,1], that `crop_pixels` really cuts from an image of `size` (width, height): for the
    filters of torch that between the nearest whole pixels, one at least; for the others the box itself."""
    if image_filter not in _TORCH:
        return box
    left, top, right, bottom = _whole_pixels(box, size)
    return left / size[0], top / size[1], right / size[0], bottom / size[1]


def _whole_pixels(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    width, height = size
    left, top = min(round(box[0] * width), width - 1), min(round(box[1] * height), height - 1)
    return left, top, max(round(box[2] * width), left + 1), max(round(box[3] * height), top + 1)


def crop_pixels(
    pixels: np.ndarray,
    box: tuple[float, float, float, float],
    size: int,
    image_filter: str = "bilinear",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Crop (H,W,3) or (H,W,4) uint8, whose fourth channel is left out, to `box` (relative) and resize it to
    (3,size,size) uint8, antialiased, by a filter of `FILTERS`; into `out`, or a new array."""
    out = np.empty((3, size, size), dtype=np.uint8) if out is None else out
    height, width = pixels.shape[:2]
    if image_filter == OPENVLA_OFT:
        out[...] = crop_lanczos(np.ascontiguousarray(pixels[..., :3]), box, size).transpose(2, 0, 1)
    elif image_filter in _TORCH:
        left, top, right, bottom = _whole_pixels(box, (width, height))
        writable = np.require(pixels, requirements="W")  # a copy of pixels that are not: torch would warn of them
        cut = torch.from_numpy(writable)[top:bottom, left:right].permute(2, 0, 1)[None]
        out[...] = interpolate(cut, (size, size), mode=_TORCH[image_filter], antialias=True)[0, :3].numpy()
    else:
        places = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        _write_planes(as_image(pixels).resize((size, size), _PILLOW[image_filter], box=places), out)
    return out


def _write_planes(image: Image.Image, out: np.ndarray) -> None:
    """Write an RGB image to `out` (3,H,W) uint8, without a copy between where Pillow keeps it in one piece."""
    width, height = image.size
    if image.mode != "RGB" or width * height > _ONE_PIECE:
        out[...] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        return
    stored: Any = pa.array(image)
    pixels = stored.values.to_numpy().view("<u4").reshape(height, width)
    for plane in range(3):  # shifting whole pixels takes half the time of copying every fourth byte
        np.copyto(out[plane], pixels, casting="unsafe")
        pixels = pixels >> 8


def crop_image(
    pixels: np.ndarray, box: tuple[float, float, float, float], size: int, image_filter: str = "bilinear"
) -> np.ndarray:
    """`crop_pixels` as float32 in [0,1]."""
    return np.multiply(crop_pixels(pixels, box, size, image_filter), np.float32(1.0 / 255.0), dtype=np.float32)


def crop_mask(mask: Image.Image, box: tuple[float, float, float, float], size: int) -> np.ndarray:
    """Crop a 0/1 mask (PIL mode "1") to `box` and resize it to (size,size) uint8 of 0 and 1.

    A cell is 1 if at least half of it is covered. If an object is too small for any such cell, the cells with the
    highest coverage are 1, so that a visible object never vanishes.
    """
    width, height = mask.size
    pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    cells = np.zeros((size, size), dtype=np.uint8)
    if height > width:
        first, coverage = 0, np.asarray(mask.convert("L").resize((size, size), Image.Resampling.BOX, box=pixels))
    else:
        first, coverage = _coverage_where_something_is(mask, pixels, size)
    if coverage.size:
        threshold = min(128, max(int(coverage.max()), 1))
        np.greater_equal(coverage, threshold, out=cells[:, first : first + coverage.shape[1]], casting="unsafe")
    return cells


def _coverage_where_something_is(
    mask: Image.Image, pixels: tuple[float, float, float, float], size: int
) -> tuple[int, np.ndarray]:
    """What a resize of the whole mask gives, without the columns of zeros at both sides: number of the first column,
    and (size,n) uint8.

    Most objects are small, so only the rows and columns are resized in which something is. Pillow resizes rows first,
    then columns, and rounds between them; for images higher than wide it may begin with the columns.
    """
    left, top, right, bottom = pixels
    width, height = mask.size
    bounds = mask.getbbox()
    if bounds is None:
        return 0, np.zeros((size, 0), dtype=np.uint8)
    num_rows = bounds[3] - bounds[1]
    rows = mask.crop((0, bounds[1], width, bounds[3])).convert("L")
    rows = rows.resize((size, num_rows), Image.Resampling.BOX, box=(left, 0, right, num_rows))
    columns = rows.getbbox()
    if columns is None:
        return 0, np.zeros((size, 0), dtype=np.uint8)
    num_columns = columns[2] - columns[0]
    strip = rows.crop((columns[0], -bounds[1], columns[2], height - bounds[1]))  # 0 outside
    resized = strip.resize((num_columns, size), Image.Resampling.BOX, box=(0, top, num_columns, bottom))
    return columns[0], np.asarray(resized)


def test_time_images(images: np.ndarray, image_size: int, crop_area: float, image_filter: str) -> np.ndarray:
    """The policy's input for camera images: (N,V,H,W,3) uint8 to (N,V,3,S,S) float32 in [0,1], centre crop.

    With `openvla_oft` they are encoded and decoded as JPEG first, as the stored images of the training were.
    """
    box = centre_crop_box(crop_area)
    out = np.empty((*images.shape[:2], 3, image_size, image_size), dtype=np.float32)
    for index in np.ndindex(*images.shape[:2]):
        if image_filter == OPENVLA_OFT:
            out[index] = openvla_oft_pixels(images[index], image_size, crop_area)
        else:
            out[index] = crop_image(images[index], box, image_size, image_filter)
    return out


# The name starts with "test", so pytest would collect this function in every test module that imports it.
test_time_images.__test__ = False  # type: ignore[attr-defined]
