"""Cached features are cropped with the same box as the student's image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from pokevla.data.images.transforms import crop_image
from pokevla.features.feature_crop import crop_grids, crop_image_features, crop_to_patches

WHOLE = (0.0, 0.0, 1.0, 1.0)


def _smooth_picture(side: int) -> np.ndarray:
    """(side, side, 3) uint8 that varies differently along x, along y and along both."""
    y, x = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side), indexing="ij")
    channels = [x, y**2, 0.5 + 0.4 * np.sin(5 * x) * np.cos(3 * y)]
    return (np.stack(channels, -1) * 255).round().astype(np.uint8)


@given(st.floats(0.0, 0.2), st.floats(0.0, 0.2), st.floats(0.7, 0.8))
def test_cropped_grid_is_the_grid_of_the_cropped_picture(left: float, top: float, side: float) -> None:
    box = (left, top, left + side, top + side)
    picture = _smooth_picture(128)
    grid = F.adaptive_avg_pool2d(torch.from_numpy(crop_image(picture, WHOLE, 128))[None], 32)

    cropped = crop_grids(grid, torch.tensor([box]), 16)

    expected = F.adaptive_avg_pool2d(torch.from_numpy(crop_image(picture, box, 128))[None], 16)
    assert (cropped - expected).abs().max() < 0.02


def test_whole_box_changes_nothing() -> None:
    torch.manual_seed(0)
    boxes = torch.tensor(WHOLE).expand(2, 2, 4)
    images, tokens = torch.randn(2, 2, 3, 8, 8), torch.randn(2, 2, 16, 5)
    assert torch.allclose(crop_image_features(images, boxes), images, atol=1e-5)
    assert torch.allclose(crop_to_patches(tokens, boxes, 16), tokens, atol=1e-5)


def test_each_view_of_each_sample_has_its_own_box() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 2, 3, 8, 8)
    boxes = torch.tensor([[[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5]], [[0, 0.5, 0.5, 1], [0.25, 0.25, 0.75, 0.75]]])

    together = crop_image_features(features, boxes)

    for sample in range(2):
        for view in range(2):
            alone = crop_grids(features[sample, view][None], boxes[sample, view][None], 8)[0]
            assert torch.allclose(together[sample, view], alone, atol=1e-6)


def test_tokens_are_a_row_major_grid() -> None:
    grid = torch.zeros(4, 4)
    grid[0, 3] = 1.0  # top right
    tokens = grid.reshape(1, 1, 16, 1)

    top_right = crop_to_patches(tokens, torch.tensor([[[0.75, 0.0, 1.0, 0.25]]]), 4)
    bottom_left = crop_to_patches(tokens, torch.tensor([[[0.0, 0.75, 0.25, 1.0]]]), 4)

    assert top_right.mean() > 0.5
    assert bottom_left.abs().max() == 0


def test_grid_and_tokens_of_the_same_features_give_the_same_patches() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 2, 36, 5)
    grid = tokens.transpose(2, 3).unflatten(3, (6, 6))
    boxes = torch.tensor([0.1, 0.2, 0.8, 0.9]).expand(2, 2, 4)

    patches = crop_to_patches(grid, boxes, 16)

    assert patches.shape == (2, 2, 16, 5)
    torch.testing.assert_close(patches, crop_to_patches(tokens, boxes, 16))


@pytest.mark.parametrize(("tokens", "patches"), [(15, 16), (16, 15)])
def test_numbers_that_fill_no_square_are_refused(tokens: int, patches: int) -> None:
    with pytest.raises(ValueError, match="square"):
        crop_to_patches(torch.zeros(1, 1, tokens, 2), torch.tensor([[WHOLE]]), patches)
