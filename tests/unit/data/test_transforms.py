from __future__ import annotations

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pokevla.data.transforms import (
    ViewAugmentation,
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    apply_colours,
    centre_crop_box,
    crop_image,
    crop_mask,
    draw_augmentation,
    no_augmentation,
    test_time_images,
)
from pokevla.recipe.sections import AugmentConfig

CONFIG = AugmentConfig()


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 1), st.floats(0.3, 1.0))
def test_drawn_values_are_within_their_ranges(seed: int, position: int, view: int, area: float) -> None:
    drawn = draw_augmentation(CONFIG.model_copy(update={"crop_area": area}), seed, position, view)
    x1, y1, x2, y2 = drawn.crop_box
    assert 0.0 <= x1 < x2 <= 1.0 + 1e-12
    assert 0.0 <= y1 < y2 <= 1.0 + 1e-12
    assert (x2 - x1) * (y2 - y1) == pytest.approx(area)
    assert abs(drawn.brightness) <= 0.2
    assert 0.8 <= drawn.contrast <= 1.2
    assert 0.8 <= drawn.saturation <= 1.2
    assert abs(drawn.hue) <= 0.05


def test_augmentation_depends_on_seed_position_and_view_only() -> None:
    drawn = draw_augmentation(CONFIG, 1, 2, 0)
    assert drawn == draw_augmentation(CONFIG, 1, 2, 0)
    assert len({drawn, *(draw_augmentation(CONFIG, *args) for args in ((2, 2, 0), (1, 3, 0), (1, 2, 1)))}) == 4


@settings(max_examples=30)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(8, 60), st.integers(0, 9))
def test_crop_moves_mask_with_image(x: int, y: int, side: int, position: int) -> None:
    inside = np.zeros((128, 128), dtype=bool)
    inside[y : y + side, x : x + side] = True
    picture = np.repeat((inside * 255).astype(np.uint8)[..., None], 3, axis=2)
    box = draw_augmentation(CONFIG, 0, position, 0).crop_box
    image = crop_image(Image.fromarray(picture), box, 64)[0]
    mask = crop_mask(Image.fromarray(inside), box, 64)
    # They may differ only on the object's edge, where the antialiased image is grey.
    assert not mask[image < 0.02].any()
    assert mask[image > 0.98].all()


def test_a_tiny_object_keeps_at_least_one_cell() -> None:
    inside = np.zeros((128, 128), dtype=bool)
    inside[50:52, 70:72] = True
    mask = crop_mask(Image.fromarray(inside), (0.0, 0.0, 1.0, 1.0), 16)
    assert mask.sum() >= 1
    assert mask[6, 8] == 1.0


def test_an_empty_mask_stays_empty() -> None:
    assert not crop_mask(Image.fromarray(np.zeros((32, 32), dtype=bool)), (0.0, 0.0, 1.0, 1.0), 8).any()


def test_centre_crop_has_the_area_asked_for() -> None:
    x1, y1, x2, y2 = centre_crop_box(0.9)
    assert (x2 - x1) * (y2 - y1) == pytest.approx(0.9)
    assert x1 + x2 == pytest.approx(1.0)
    assert no_augmentation(1.0).crop_box == (0.0, 0.0, 1.0, 1.0)


def test_test_time_images_are_the_training_crop_at_the_centre() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 2, 128, 128, 3), dtype=np.uint8)
    seen = test_time_images(images, 112, 0.9)
    assert seen.shape == (2, 2, 3, 112, 112)
    assert seen.dtype == np.float32
    assert 0.0 <= seen.min() <= seen.max() <= 1.0
    assert np.array_equal(seen[1, 0], crop_image(Image.fromarray(images[1, 0]), centre_crop_box(0.9), 112))


def test_whole_image_at_its_own_size_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    out = crop_image(Image.fromarray(image), (0.0, 0.0, 1.0, 1.0), 16)
    assert np.array_equal(np.rint(out.transpose(1, 2, 0) * 255), image)


@settings(max_examples=40)
@given(st.tuples(*[st.floats(0.0, 1.0, width=32)] * 3), st.floats(-0.5, 0.5), st.floats(0.0, 2.0))
def test_hue_and_saturation_are_those_of_hsv(rgb: tuple[float, float, float], turns: float, factor: float) -> None:
    pixel = np.array(rgb, dtype=np.float32).reshape(3, 1, 1)
    h, s, v = colorsys.rgb_to_hsv(*pixel.ravel().tolist())
    assert adjust_hue(pixel, turns).ravel() == pytest.approx(colorsys.hsv_to_rgb((h + turns) % 1.0, s, v), abs=2e-5)
    expected = colorsys.hsv_to_rgb(h, min(1.0, s * factor), v)
    assert adjust_saturation(pixel, factor).ravel() == pytest.approx(expected, abs=2e-5)


def test_brightness_adds_and_contrast_keeps_the_mean() -> None:
    image = np.random.default_rng(0).uniform(0.4, 0.6, (3, 8, 8)).astype(np.float32)
    assert adjust_brightness(image, 0.1) == pytest.approx(image + 0.1)
    assert adjust_contrast(image, 1.2).mean(axis=(1, 2)) == pytest.approx(image.mean(axis=(1, 2)), abs=1e-6)


def test_colours_never_leave_the_unit_range() -> None:
    image = np.random.default_rng(0).uniform(0, 1, (3, 32, 32)).astype(np.float32)
    for position in range(20):
        out = apply_colours(image, draw_augmentation(CONFIG, 0, position, 0))
        assert out.min() >= 0.0
        assert out.max() <= 1.0
    assert apply_colours(image, ViewAugmentation((0, 0, 1, 1))) is image
