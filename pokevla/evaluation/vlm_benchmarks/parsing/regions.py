"""What a reply points at: pixels and boxes of pixels, and their score against a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Region(NamedTuple):
    """Pixels x0 <= x < x1, y0 <= y < y1 of an image; a point is one pixel. They may lie outside the image."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return max(self.x1 - self.x0, 0) * max(self.y1 - self.y0, 0)


def point_region(x: int, y: int) -> Region:
    """The pixel at (x, y)."""
    return Region(x, y, x + 1, y + 1)


@dataclass(frozen=True)
class Reading:
    """What a scorer has read in a reply."""

    regions: tuple[Region, ...] = ()
    skipped: str | None = None
    """Why the official scorer leaves the question out of its mean; None if it does not."""
    in_pixels: bool = False
    """A tuple of whole numbers was taken as pixels."""

    @property
    def failure(self) -> str | None:
        """Why nothing can be scored: `skipped`, or no region with a pixel. None if something can."""
        if self.skipped is not None:
            return f"skipped: {self.skipped}"
        return None if any(region.area for region in self.regions) else "nothing read"


def region_score(regions: Sequence[Region], mask: np.ndarray) -> float:
    """Mean of `mask` (H, W), values in [0, 1], over all pixels of all regions. Pixels outside count 0; no pixels: 0.

    Equals the mean over the list of pixels that the official scorers build (RoboPoint robopoint/eval/summarize_vqa.py,
    RoboRefer Evaluation/summarize_acc.py) without building it: a box of a wild reply has 10^11 pixels.
    """
    height, width = mask.shape
    total, hit = 0, 0.0
    for region in regions:
        total += region.area
        left, right = max(region.x0, 0), min(region.x1, width)
        top, bottom = max(region.y0, 0), min(region.y1, height)
        if left < right and top < bottom:
            hit += float(mask[top:bottom, left:right].sum(dtype=np.float64))
    return hit / total if total else 0.0
