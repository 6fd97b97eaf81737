"""uint8 images become the floats that the host would have computed, and colours change as in HSV."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pokevla.data.batch import Colours
from pokevla.data.images.pixels import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    change_colours,
    to_unit_range,
)

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (2, 2, 3, 16, 16), dtype=np.uint8)
FLOATS = np.multiply(IMAGES, np.float32(1.0 / 255.0), dtype=np.float32)


def amounts(low: float, high: float) -> torch.Tensor:
    return torch.from_numpy(GENERATOR.uniform(low, high, (2, 2)).astype(np.float32))


def test_bytes_become_the_same_floats_bit_for_bit() -> None:
    assert np.array_equal(to_unit_range(torch.from_numpy(IMAGES)).numpy(), FLOATS)
    already = torch.from_numpy(FLOATS)
    assert to_unit_range(already) is already


def test_brightness_is_added_bit_for_bit() -> None:
    delta = amounts(-0.2, 0.2)
    ours = to_unit_range(torch.from_numpy(IMAGES), Colours(delta, None, None, None))
    assert np.array_equal(ours.numpy(), np.clip(FLOATS + delta.numpy()[..., None, None, None], 0.0, 1.0))


def test_contrast_scales_around_the_mean_of_each_channel() -> None:
    factor = amounts(0.8, 1.2)
    ours = to_unit_range(torch.from_numpy(IMAGES), Colours(None, factor, None, None)).numpy()
    mean = FLOATS.mean(axis=(3, 4), keepdims=True)
    expected = np.clip((FLOATS - mean) * factor.numpy()[..., None, None, None] + mean, 0.0, 1.0)
    assert ours == pytest.approx(expected, abs=1e-6)


@settings(max_examples=40)
@given(st.tuples(*[st.floats(0.0, 1.0, width=32)] * 3), st.floats(-0.5, 0.5), st.floats(0.0, 2.0))
def test_hue_and_saturation_are_those_of_hsv(rgb: tuple[float, float, float], turns: float, factor: float) -> None:
    pixel = torch.tensor(rgb, dtype=torch.float32).reshape(1, 3, 1, 1)
    h, s, v = colorsys.rgb_to_hsv(*pixel.flatten().tolist())
    turned = adjust_hue(pixel, torch.tensor(turns, dtype=torch.float32).reshape(1, 1, 1, 1))
    assert turned.flatten().tolist() == pytest.approx(colorsys.hsv_to_rgb((h + turns) % 1.0, s, v), abs=2e-5)
    expected = colorsys.hsv_to_rgb(h, min(1.0, s * factor), v)
    scaled = adjust_saturation(pixel, torch.tensor(factor, dtype=torch.float32).reshape(1, 1, 1, 1))
    assert scaled.flatten().tolist() == pytest.approx(expected, abs=2e-5)


def test_each_image_has_its_own_amount() -> None:
    images = torch.from_numpy(FLOATS).flatten(0, 1)
    for change, amount in (
        (adjust_brightness, amounts(-0.2, 0.2)),
        (adjust_contrast, amounts(0.8, 1.2)),
        (adjust_saturation, amounts(0.8, 1.2)),
        (adjust_hue, amounts(-0.05, 0.05)),
    ):
        together = change(images, amount.flatten()[:, None, None, None])
        alone = [change(images[i : i + 1], amount.flatten()[i : i + 1, None, None, None]) for i in range(4)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def test_colours_never_leave_the_unit_range() -> None:
    colours = Colours(amounts(-0.2, 0.2), amounts(0.8, 1.2), amounts(0.8, 1.2), amounts(-0.05, 0.05))
    out = change_colours(torch.from_numpy(FLOATS).flatten(0, 1), colours)
    assert out.min() >= 0.0
    assert out.max() <= 1.0
