"""The image path against numbers of TensorFlow 2.15.1, computed with `tf.image` on the same pictures."""

from __future__ import annotations

import numpy as np
import pytest

from pokevla.data.images.tensorflow_resampling import (
    centre_crop,
    jpeg_round_trip,
    lanczos_weights,
    resize_lanczos,
)
from pokevla.data.images.transforms import test_time_images
from pokevla.data.published.images import ImagePath, published_pixels


def picture(height: int, width: int) -> np.ndarray:
    """Rings and stripes that any slip of a pixel changes."""
    y, x, c = np.mgrid[0:height, 0:width, 0:3]
    return ((x * x * 3 + y * y * 5 + x * y * 7 + c * 83) // 16 % 256).astype(np.uint8)


def summary(image: np.ndarray) -> list[list[int]]:
    return [image.astype(int).sum((0, 1)).tolist(), *(image[place].tolist() for place in ((0, 0), (20, 33), (55, 55)))]


def test_the_crop_is_tensorflows() -> None:
    expected = [[389734, 389898, 392286], [1, 6, 12], [110, 115, 120], [132, 137, 142]]
    assert summary(centre_crop(picture(56, 56), 0.9)) == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((80, 96), [[394841, 394559, 395694], [0, 5, 10], [40, 44, 57], [121, 128, 131]]),
        ((40, 30), [[366220, 367823, 374692], [0, 5, 10], [229, 240, 225], [107, 114, 119]]),
    ],
)
def test_lanczos_is_tensorflows_up_to_the_last_bit_of_a_sum(size: tuple[int, int], expected: list[list[int]]) -> None:
    sums, *pixels = summary(resize_lanczos(picture(*size), 56))
    assert np.abs(np.array(sums) - expected[0]).max() <= 2  # a value of exactly one half may round either way
    assert pixels == expected[1:]


@pytest.mark.parametrize(("length", "size"), [(256, 224), (224, 224), (100, 224), (37, 5)])
def test_weights_of_a_pixel_sum_to_one(length: int, size: int) -> None:
    weights = lanczos_weights(length, size)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-6)


def test_a_plain_picture_stays_plain() -> None:
    images = np.full((1, 2, 64, 48, 3), (10, 200, 77), np.uint8)
    pixels = published_pixels(images, 28, ImagePath(jpeg=False))
    assert pixels.shape == (1, 2, 3, 28, 28)
    assert pixels.dtype == np.float32
    for plane, value in enumerate((10, 200, 77)):
        np.testing.assert_array_equal(pixels[:, :, plane], np.float32(value) / np.float32(255))


def test_each_step_of_the_path_changes_the_pixels() -> None:
    images = picture(64, 64)[None, None]
    whole = published_pixels(images, 28, ImagePath())
    for other in (ImagePath(jpeg=False), ImagePath(lanczos=False), ImagePath(crop_area=1.0)):
        assert np.abs(published_pixels(images, 28, other) - whole).max() > 0.02, other


def test_jpeg_keeps_a_smooth_picture() -> None:
    y, x, c = np.mgrid[0:64, 0:64, 0:3]
    smooth = (x + y + 20 * c).astype(np.uint8)
    back = jpeg_round_trip(smooth)
    assert back.shape == smooth.shape
    assert np.abs(back.astype(int) - smooth).mean() < 1.6


def test_our_policies_can_take_the_same_way() -> None:
    images = np.stack([picture(128, 128), picture(128, 128)[::-1]])[None]
    ours = test_time_images(images, 56, 0.9, "openvla_oft")
    np.testing.assert_array_equal(ours, published_pixels(images, 56, ImagePath()))
