"""Visualisation of a policy's input: its views, with predicted and true masks drawn on them."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

PREDICTED_COLOUR = (255, 64, 160)
TRUE_COLOUR = (60, 230, 110)
FILL_ALPHA = 0.28


def outline(mask: np.ndarray) -> np.ndarray:
    """The outline of a boolean mask (H, W): one pixel wide, inside the mask."""
    return mask & ~ndimage.binary_erosion(mask, border_value=1)


def resized_image(image: np.ndarray, side: int) -> np.ndarray:
    """An image (H, W, 3) uint8 as (side, side, 3)."""
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def resized_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """A mask (H, W) as (side, side) bool."""
    if mask.shape == (side, side):
        return mask.astype(bool)
    large = Image.fromarray(mask.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
    return np.asarray(large).astype(bool)


def draw_masks(image: np.ndarray, predicted: np.ndarray | None, true: np.ndarray | None) -> np.ndarray:
    """Draw masks (H, W) on one view (H, W, 3) uint8: `predicted` filled and outlined, `true` as an outline."""
    canvas = image.astype(np.float32)
    for mask, colour, fill in ((predicted, PREDICTED_COLOUR, True), (true, TRUE_COLOUR, False)):
        if mask is None:
            continue
        inside = mask.astype(bool)
        if fill:
            canvas[inside] = (1 - FILL_ALPHA) * canvas[inside] + FILL_ALPHA * np.array(colour, np.float32)
        canvas[outline(inside)] = colour
    return canvas.round().astype(np.uint8)


def draw_views(
    images: np.ndarray, predicted: np.ndarray | None, true: np.ndarray | None, side: int
) -> list[np.ndarray]:
    """Every view (side, side, 3) with its masks. `images` (V, H, W, 3) uint8; masks (V, H, W) or None."""
    return [
        draw_masks(
            resized_image(image, side),
            None if predicted is None else resized_mask(predicted[view], side),
            None if true is None else resized_mask(true[view], side),
        )
        for view, image in enumerate(images)
    ]


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
