"""Crops cached feature grids like the student's image, on the device.

The teacher saw the uncropped image. Cropping its grid instead of running it on the crop is exact up to resampling, and
costs almost nothing (docs/cache.md, The crop).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_grids(grids: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Resample the box of each grid to `size` x `size` cells, bilinearly.

    Args:
        grids: (N, C, G, G), cells centred at ((i + 0.5) / G).
        boxes: (N, 4) x1, y1, x2, y2 in [0, 1] of the image that the grid covers. (0, 0, 1, 1) with size G is the
            identity up to rounding.
        size: side of the result in cells.

    Returns:
        (N, C, size, size) in the dtype of `grids`. Beyond the outermost cell centres, edge values are repeated.
    """
    centres = (torch.arange(size, device=boxes.device, dtype=boxes.dtype) + 0.5) / size  # in [0, 1] of the box
    x = boxes[:, 0, None] + centres * (boxes[:, 2] - boxes[:, 0])[:, None]  # (N, size)
    y = boxes[:, 1, None] + centres * (boxes[:, 3] - boxes[:, 1])[:, None]
    places = torch.stack(
        [x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1
    )  # (N, size, size, 2)
    # align_corners=False: -1 and 1 are the outer edges of the corner cells, so [0, 1] maps to them linearly.
    return F.grid_sample(
        grids, (2 * places - 1).to(grids.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )


def crop_image_features(features: Tensor, boxes: Tensor) -> Tensor:
    """Crop grids (B, V, C, G, G) to boxes (B, V, 4). The shape is unchanged."""
    batch, views = features.shape[:2]
    return crop_grids(features.flatten(0, 1), boxes.flatten(0, 1), features.shape[-1]).unflatten(0, (batch, views))


def crop_to_patches(features: Tensor, boxes: Tensor, num_patches: int) -> Tensor:
    """Crop features of any field to boxes (B, V, 4) and resample them to the student's patch grid.

    Args:
        features: a grid (B, V, T, G, G), or tokens (B, V, N, T) of a square row-major grid.

    Returns:
        (B, V, P, T) with P = num_patches, row-major.

    Raises:
        ValueError: N or P is not a square number.
    """
    batch, views = features.shape[:2]
    size = round(num_patches**0.5)
    if size * size != num_patches:
        raise ValueError(f"{num_patches} patches do not fill a square grid")
    grids = features if features.ndim == 5 else _token_grids(features)
    cropped = crop_grids(grids.flatten(0, 1), boxes.flatten(0, 1), size)  # (B * V, T, size, size)
    return cropped.flatten(2).transpose(1, 2).unflatten(0, (batch, views))


def _token_grids(tokens: Tensor) -> Tensor:
    """(B, V, N, T) -> (B, V, T, side, side)."""
    side = round(tokens.shape[2] ** 0.5)
    if side * side != tokens.shape[2]:
        raise ValueError(f"{tokens.shape[2]} tokens do not fill a square grid")
    return tokens.unflatten(2, (side, side)).permute(0, 1, 4, 2, 3)
