"""The crop of training: anywhere in the picture, bilinear. tests/unit/data/published has TensorFlow's own numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from pokevla.data.images.tensorflow_resampling import centre_crop, crop_and_resize, crop_lanczos, resize_lanczos
from pokevla.data.images.transforms import centre_crop_box, crop_pixels

WHOLE = (0.0, 0.0, 1.0, 1.0)


def noise(size: int) -> np.ndarray:
    return np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)


@given(st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.1, 0.6))
def test_a_crop_anywhere_is_linear_interpolation_between_corner_pixels(x: float, y: float, side: float) -> None:
    image = noise(24)
    cropped = crop_and_resize(image, (x, y, x + side, y + side))
    rows, columns = (np.linspace(low, low + side, 24) * 23 for low in (y, x))
    places = np.stack(np.meshgrid(rows, columns, indexing="ij"))
    for channel in range(3):
        expected = map_coordinates(image[..., channel].astype(float), places, order=1)
        assert np.abs(cropped[..., channel] - np.floor(expected / 255 * 255.5)).max() <= 1  # float32


def test_the_centre_is_a_crop_like_any_other() -> None:
    image = noise(32)
    differences = np.abs(crop_and_resize(image, centre_crop_box(0.9)).astype(int) - centre_crop(image, 0.9))
    assert differences.max() <= 1
    assert (differences > 0).mean() < 0.01


def test_training_resizes_first_and_then_crops() -> None:
    image = noise(40)
    box = (0.05, 0.0, 0.95, 0.9)
    expected = crop_and_resize(resize_lanczos(image, 28), box).transpose(2, 0, 1)
    np.testing.assert_array_equal(crop_pixels(image, box, 28, "openvla_oft"), expected)
    np.testing.assert_array_equal(crop_lanczos(image, WHOLE, 28), resize_lanczos(image, 28))
