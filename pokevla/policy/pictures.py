"""Visualisation of a policy's input: all views side by side, with predicted and true masks drawn on them."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

PREDICTED_COLOUR = (255, 64, 160)
TRUE_COLOUR = (60, 230, 110)
FILL_ALPHA = 0.28


def outline(mask: np.ndarray) -> np.ndarray:
    """The outline of a boolean mask (H, W): one pixel wide, inside the mask."""
    return mask & ~ndimage.binary_erosion(mask, border_value=1)


def draw_masks(image: np.ndarray, predicted: np.ndarray | None, true: np.ndarray | None, scale: int = 2) -> np.ndarray:
    """Enlarge one view (H, W, 3) uint8 by `scale` and draw masks (H, W): `predicted` filled and outlined, `true` as an
    outline. Returns (scale*H, scale*W, 3) uint8."""
    canvas = np.repeat(np.repeat(image, scale, axis=0), scale, axis=1).astype(np.float32)
    for mask, colour, fill in ((predicted, PREDICTED_COLOUR, True), (true, TRUE_COLOUR, False)):
        if mask is None:
            continue
        large = np.repeat(np.repeat(mask.astype(bool), scale, axis=0), scale, axis=1)
        if fill:
            canvas[large] = (1 - FILL_ALPHA) * canvas[large] + FILL_ALPHA * np.array(colour, np.float32)
        canvas[outline(large)] = colour
    return canvas.round().astype(np.uint8)


def draw_views(images: np.ndarray, predicted: np.ndarray | None, true: np.ndarray | None, scale: int = 2) -> np.ndarray:
    """All views side by side. `images` (V, H, W, 3) uint8; masks (V, H, W) or None. Returns (sH, VsW, 3)."""
    views = [
        draw_masks(
            image, None if predicted is None else predicted[view], None if true is None else true[view], scale=scale
        )
        for view, image in enumerate(images)
    ]
    return np.concatenate(views, axis=1)


def caption(picture: np.ndarray, text: str) -> np.ndarray:
    """Add a dark bar with one line of `text` below `picture` (H, W, 3). Returns (H + 18, W, 3)."""
    bar = Image.new("RGB", (picture.shape[1], 18), (24, 26, 32))
    ImageDraw.Draw(bar).text((4, 3), text, fill=(235, 235, 240))
    return np.concatenate([picture, np.asarray(bar)], axis=0)


def strip(pictures: list[np.ndarray], columns: int) -> np.ndarray:
    """Arrange images of equal size in rows of `columns`, with thin gaps. Empty cells stay dark."""
    height, width = pictures[0].shape[:2]
    gap, rows = 4, -(-len(pictures) // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 24, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = picture
    return canvas


def mask_iou(predicted: np.ndarray, true: np.ndarray) -> float | None:
    """Intersection over union of two boolean masks; None if both are empty."""
    union = np.logical_or(predicted, true).sum()
    return float(np.logical_and(predicted, true).sum() / union) if union else None
