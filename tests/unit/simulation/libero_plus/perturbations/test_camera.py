"""Camera poses against those that the official `_setup_camera` gives."""

from __future__ import annotations

import pytest

from pokevla.simulation.libero_plus.names import CameraMove
from pokevla.simulation.libero_plus.perturbations.camera import moved_camera

POSITION = [0.6586131746834771, 0.0, 1.6103500240372423]
QUATERNION = [0.6380177736282349, 0.3048497438430786, 0.30484986305236816, 0.6380177736282349]


# From libero_tabletop_manipulation.py of LIBERO-Plus, run with scipy 1.17.
@pytest.mark.parametrize(
    ("move", "position", "quaternion"),
    [
        (CameraMove(), [0.6586, 0.0, 1.6104], [0.638, 0.3048, 0.3048, 0.638]),
        (CameraMove(47, 15), [0.2908, 0.3118, 1.7532], [0.3485, 0.1135, 0.2881, 0.8847]),
        (CameraMove(310), [0.4233, -0.5045, 1.6104], [-0.8479, -0.4051, -0.1475, -0.3086]),
        (CameraMove(0, 0, 191), [1.2579, 0.0, 2.3479], [0.638, 0.3048, 0.3048, 0.638]),
        (CameraMove(0, 0, 100, 4, 352), [0.6586, 0.0, 1.6104], [-0.5919, -0.3393, -0.3575, -0.6378]),
    ],
)
def test_poses_equal_the_official_ones_to_the_last_digit(
    move: CameraMove, position: list[float], quaternion: list[float]
) -> None:
    assert moved_camera(POSITION, QUATERNION, move) == (position, quaternion)


def test_a_full_turn_in_two_halves_comes_back() -> None:
    half = moved_camera(POSITION, QUATERNION, CameraMove(180))
    whole = moved_camera(*half, CameraMove(180))
    assert whole[0] == pytest.approx(POSITION, abs=2e-4)
