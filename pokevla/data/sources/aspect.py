"""Makes the images and masks of a dataset square and of one size.

The side is the largest that any image needs, so nothing is reduced: `pad` and `stretch` need the longer side of an
image, `crop` its shorter one. Square images of one size are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from PIL import Image

from pokevla.data.sources.demonstrations import Demo

Aspect = Literal["stretch", "pad", "crop"]
"""`stretch` scales both sides to the new one, as model and policy do with any image. `pad` adds black bars (outside of
every mask), `crop` cuts the longer side, both centred."""


@dataclass(frozen=True)
class Squares:
    """What is done to every image and mask of one dataset."""

    side: int | None
    """None: they stay as they are."""
    aspect: Aspect

    @classmethod
    def of(cls, sizes: Iterable[tuple[int, int]], aspect: Aspect) -> Self:
        """For a dataset with images of `sizes` (height, width)."""
        different = set(sizes)
        if len(different) <= 1 and all(height == width for height, width in different):
            return cls(None, aspect)
        return cls(max((min if aspect == "crop" else max)(size) for size in different), aspect)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Images (T,H,W,3) or masks (T,H,W)."""
        return values if self.side is None else square_images(values, self.side, self.aspect)

    def episode(self, demo: Demo) -> Demo:
        """The episode with its images and masks made square."""
        images = {view: self(values) for view, values in demo.images.items()}
        masks = demo.masks and {view: self(values) for view, values in demo.masks.items()}
        return replace(demo, images=images, masks=masks)


def square_images(values: np.ndarray, side: int, aspect: Aspect) -> np.ndarray:
    """Images (T,H,W,3) or masks (T,H,W), uint8, as (T,side,side,...). Masks keep their values: the nearest pixel's."""
    if values.shape[1:3] == (side, side):
        return values
    resample = Image.Resampling.BILINEAR if values.ndim == 4 else Image.Resampling.NEAREST
    out = np.zeros((len(values), side, side, *values.shape[3:]), np.uint8)
    height, width = values.shape[1:3]
    box = (0.0, 0.0, float(width), float(height))
    rows = columns = slice(0, side)
    if aspect == "crop":
        square = min(height, width)
        left, top = (width - square) / 2, (height - square) / 2
        box = (left, top, left + square, top + square)
    elif aspect == "pad":
        scale = side / max(height, width)
        rows, columns = _centred(max(1, round(height * scale)), side), _centred(max(1, round(width * scale)), side)
    target = (columns.stop - columns.start, rows.stop - rows.start)
    for index, image in enumerate(values):
        out[index, rows, columns] = np.asarray(Image.fromarray(image).resize(target, resample, box=box))
    return out


def _centred(length: int, side: int) -> slice:
    start = (side - length) // 2
    return slice(start, start + length)
