"""Pose of the base camera in the Camera Viewpoints tasks of LIBERO-Plus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pokevla.simulation.libero_plus.names import CameraMove

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

PIVOT = (0.0, 0.0, 0.8)
"""Point in m that tilt and distance refer to, in every scene."""
_DECIMALS = 4


def moved_camera(
    position: Sequence[float], quaternion: Sequence[float], move: CameraMove
) -> tuple[list[float], list[float]]:
    """New position in m and quaternion wxyz of a camera, from LIBERO's own.

    As officially, both are rounded to four digits after each turn, also where nothing is turned. Source:
    sylvestf/LIBERO-plus, `_setup_camera` in libero/libero/envs/problems/*.py (the same in all scenes).
    """
    from scipy.spatial.transform import Rotation

    place, pose = list(position), list(quaternion)
    if move.tilt:
        tilt = Rotation.from_rotvec(np.radians(-move.tilt) * np.array([0, 1, 0]))
        place = _rounded(tilt.apply(np.array(place) - np.array(PIVOT)) + np.array(PIVOT))
        pose = _turned(tilt, pose)
    turn = _about_z(move.turn)
    place, pose = _rounded(turn.apply(place)), _turned(turn, pose)
    if move.distance != 100:
        pivot = np.array(PIVOT)
        place = _rounded(pivot + (np.array(place) - pivot) * float(move.distance / 100))
    if move.aim_turn:
        pose = _turned(_about_z(move.aim_turn), pose)
    if move.aim_tilt:
        pose = _turned(Rotation.from_rotvec(np.radians(-move.aim_tilt) * np.array([0, 1, 0])), pose)
    return place, pose


def _about_z(degrees: int) -> Rotation:
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("z", degrees, degrees=True)


def _turned(rotation: Rotation, quaternion: Sequence[float]) -> list[float]:
    from scipy.spatial.transform import Rotation

    w, x, y, z = quaternion
    x, y, z, w = (rotation * Rotation.from_quat([x, y, z, w])).as_quat()
    return _rounded([w, x, y, z])


def _rounded(numbers: Sequence[float] | np.ndarray) -> list[float]:
    return [round(float(number), _DECIMALS) for number in numbers]
