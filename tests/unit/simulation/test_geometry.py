"""Rotations and footprints."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pokevla.simulation.geometry import (
    clearance,
    convex_hull,
    inside_hull,
    narrow_side,
    quaternion_to_axis_angle,
    rotation_error,
)

ANGLES = st.floats(-3.0, 3.0)
SQUARE = np.array([[0.0, 0.0], [0.1, 0.0], [0.1, 0.1], [0.0, 0.1]])


@given(ANGLES, ANGLES, ANGLES)
def test_axis_angle_is_that_of_the_quaternion(x: float, y: float, z: float) -> None:
    rotation = Rotation.from_rotvec([x, y, z])
    again = Rotation.from_rotvec(quaternion_to_axis_angle(rotation.as_quat()))
    assert (rotation.inv() * again).magnitude() < 1e-6


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_axis_angle_is_not_flipped_where_the_scalar_is_negative(values: list[float]) -> None:
    """robosuite's form (utils/transform_utils.py, quat2axisangle), with which policies are trained: beyond pi, too."""
    quaternion = np.array(values) / np.linalg.norm(values)
    *vector, scalar = quaternion
    length = math.sqrt(max(0.0, 1 - scalar * scalar))
    angle = 2 * math.acos(max(-1.0, min(1.0, scalar)))
    assume(length > 1e-4)
    expected = np.array(vector) * angle / length
    np.testing.assert_allclose(quaternion_to_axis_angle(quaternion), expected, atol=1e-6)


@given(ANGLES, st.floats(-1.5, 1.5))
def test_rotation_error_turns_the_current_into_the_desired(start: float, turn: float) -> None:
    current = Rotation.from_euler("xyz", [3.0, 0.1, start])
    desired = Rotation.from_rotvec([0.0, 0.0, turn]) * current
    np.testing.assert_allclose(rotation_error(desired.as_matrix(), current.as_matrix()), [0, 0, turn], atol=1e-5)


@given(st.floats(0.0, math.pi))
def test_the_narrow_side_is_found_at_any_angle(angle: float) -> None:
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = np.array([[-2.0, -1.0], [2.0, -1.0], [2.0, 1.0], [-2.0, 1.0]]) @ rotation.T + [5.0, 3.0]
    width, direction, centre = narrow_side(corners)
    assert width == pytest.approx(2.0)
    assert abs(math.cos(direction - angle)) < 1e-6  # across the long side
    np.testing.assert_allclose(centre, [5.0, 3.0], atol=1e-9)


def test_clearance_is_the_gap_and_zero_inside() -> None:
    hull = convex_hull(SQUARE)
    assert clearance(hull, hull + np.array([0.15, 0.0])) == pytest.approx(0.05)
    assert clearance(hull, (hull - 0.05) * 0.1 + 0.05) == 0.0
    assert inside_hull(np.array([0.05, 0.05]), hull)
    assert not inside_hull(np.array([0.15, 0.05]), hull)
