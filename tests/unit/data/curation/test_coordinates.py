"""Coordinates of published sets as fractions of the image."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.data.curation.coordinates import Scale, convert_box, convert_points, to_unit
from pokevla.data.curation.rules import Reject

FRACTION, SIDE = st.floats(0, 1), st.integers(1, 4000)


@given(FRACTION, FRACTION, SIDE, SIDE)
def test_what_was_padded_to_a_square_comes_back(x: float, y: float, width: int, height: int) -> None:
    side = max(width, height)
    left, top = (side - width) / 2, (side - height) / 2  # of the image in the square, in pixels
    padded = (left + x * width) / side, (top + y * height) / side
    assert to_unit(*padded, "padded", (width, height)) == pytest.approx((x, y), abs=1e-9 * side)


@pytest.mark.parametrize(
    ("scale", "point", "expected"),
    [
        ("unit", (0.25, 0.75), (0.25, 0.75)),
        ("pixel", (50, 30), (0.5, 0.6)),
        ("percent", (25, 75), (0.25, 0.75)),
        ("thousand_yx", (750, 250), (0.25, 0.75)),
        ("padded", (0.5, 0.25), (0.5, 0.0)),  # half of the height is padding
    ],
)
def test_each_scale_by_hand(scale: Scale, point: tuple[float, float], expected: tuple[float, float]) -> None:
    assert to_unit(*point, scale, (100, 50)) == pytest.approx(expected)


def test_boxes_by_corners_and_by_size_are_the_same() -> None:
    corners, _ = convert_box((10, 5, 30, 25), "pixel", "xyxy", (100, 50))
    sized, _ = convert_box((10, 5, 20, 20), "pixel", "xywh", (100, 50))
    assert corners == sized == pytest.approx((0.1, 0.1, 0.3, 0.5))


def test_pixels_among_fractions_are_rejected() -> None:
    with pytest.raises(Reject, match="coord_scale_mismatch"):
        convert_points([(0.5, 0.5), (120, 40)], "unit", (640, 480))
