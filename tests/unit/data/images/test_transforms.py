from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode, functional, v2

from pokevla.data.images.transforms import (
    FILTERS,
    centre_crop_box,
    crop_image,
    crop_mask,
    crop_pixels,
    cut_box,
    draw_augmentation,
    image_filter_of,
    no_augmentation,
    test_time_images,
)
from pokevla.errors import DataError
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
    image = crop_image(picture, box, 64)[0]
    mask = crop_mask(Image.fromarray(inside), box, 64)
    # They may differ only on the object's edge, where the antialiased image is grey.
    assert not mask[image < 0.02].any()
    assert mask[image > 0.98].all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.sampled_from([1.0, 0.9, 0.4]), st.integers(0, 99),
    st.floats(0, 0.9),
)  # fmt: skip
def test_a_mask_is_resized_as_a_whole_image_would_be(
    width: int, height: int, size: int, area: float, seed: int, empty: float
) -> None:
    rng = np.random.default_rng(seed)
    inside = rng.random((height, width)) < rng.random()
    inside[:, : int(empty * width)] = inside[int((1 - empty) * height) :] = False
    config = CONFIG.model_copy(update={"crop_area": area})
    box = draw_augmentation(config, seed, 0, 0).crop_box
    pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    mask = Image.fromarray(inside)
    coverage = np.asarray(mask.convert("L").resize((size, size), Image.Resampling.BOX, box=pixels))
    expected = coverage >= min(128, max(int(coverage.max()), 1))
    np.testing.assert_array_equal(crop_mask(mask, box, size), expected)


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
    seen = test_time_images(images, 112, 0.9, "bilinear")
    assert seen.shape == (2, 2, 3, 112, 112)
    assert seen.dtype == np.float32
    assert 0.0 <= seen.min() <= seen.max() <= 1.0
    assert np.array_equal(seen[1, 0], crop_image(images[1, 0], centre_crop_box(0.9), 112))


def test_whole_image_at_its_own_size_is_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(crop_pixels(image, (0.0, 0.0, 1.0, 1.0), 16).transpose(1, 2, 0), image)


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_image_filters_are_those_of_torchvision_on_pictures(name: str) -> None:
    """Prismatic resizes with torchvision's Resize on PIL images (timm/data/transforms_factory.py)."""
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    expected = np.asarray(functional.resize(Image.fromarray(picture), [28, 28], InterpolationMode(name))).transpose(
        2, 0, 1
    )
    ours = crop_pixels(picture, (0.0, 0.0, 1.0, 1.0), 28, name)
    assert np.array_equal(ours, expected)
    assert image_filter_of({"image_filter": name}) == name


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
@given(st.integers(60, 300), st.integers(60, 300), st.floats(0, 0.4), st.floats(0, 0.4))
@settings(max_examples=20, deadline=None)
def test_filters_of_torch_are_those_of_torchvision_on_tensors(
    name: str, width: int, height: int, left: float, top: float
) -> None:
    noise = Image.fromarray(np.random.default_rng(width * height).integers(0, 256, (9, 9, 4), dtype=np.uint8))
    stored = np.asarray(noise.resize((width, height), Image.Resampling.BILINEAR)).copy()
    asked = (left, top, left + 0.5, top + 0.55)
    box = cut_box(asked, (width, height), f"{name}_torch")
    x1, y1, x2, y2 = (round(edge * side) for edge, side in zip(box, (width, height, width, height), strict=True))
    ours = crop_pixels(stored, asked, 28, f"{name}_torch").astype(int)
    picture = np.ascontiguousarray(stored[..., :3])
    assert np.array_equal(ours, crop_pixels(picture, box, 28, f"{name}_torch"))
    cut = np.ascontiguousarray(picture[y1:y2, x1:x2])
    # Pillow mixes pixels beside the box into those at its edge, so it gets the cut.
    assert np.abs(ours - crop_pixels(cut, (0.0, 0.0, 1.0, 1.0), 28, name)).max() <= (2 if name == "bilinear" else 8)
    if name == "bilinear":  # the other one is computed in float32 by torchvision
        tensor = torch.from_numpy(cut).permute(2, 0, 1)
        theirs = v2.functional.resize(tensor, [28, 28], InterpolationMode(name), antialias=True).numpy()
        assert np.abs(ours - theirs).max() <= 1  # other layouts of memory are rounded in other ways


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FILTERS)
def test_pixels_that_may_not_be_written_are_taken_by_every_filter(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    expected = crop_pixels(pixels.copy(), (0.1, 0.1, 0.9, 0.9), 16, name)
    pixels.flags.writeable = False
    assert np.array_equal(crop_pixels(pixels, (0.1, 0.1, 0.9, 0.9), 16, name), expected)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 1))
def test_crops_of_torch_begin_and_end_at_whole_pixels(
    width: int, height: int, left: float, top: float, side: float
) -> None:
    side = min(side, 1 - left, 1 - top)
    box = (left, top, left + side, top + side)
    assert cut_box(box, (width, height), "bilinear") == box
    x1, y1, x2, y2 = (edge * pixels for edge, pixels in zip(
        cut_box(box, (width, height), "bilinear_torch"), (width, height, width, height), strict=True
    ))  # fmt: skip
    for edge, asked in ((x1, left * width), (y1, top * height)):
        assert abs(edge - round(edge)) < 1e-9
        assert abs(edge - asked) <= 1 + 1e-9
    assert 0 <= x1 <= x2 - 1 + 1e-9 <= width
    assert 0 <= y1 <= y2 - 1 + 1e-9 <= height


def test_exports_from_before_the_filter_was_a_choice_used_bilinear() -> None:
    assert image_filter_of({}) == "bilinear"
    with pytest.raises(DataError, match="names the image filter 'nearest'"):
        image_filter_of({"image_filter": "nearest"})
