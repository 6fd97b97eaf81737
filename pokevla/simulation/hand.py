"""Space occupied by the Panda's hand, pointing straight down: grasp height and collisions."""

from __future__ import annotations

import math

import numpy as np

# Panda's hand (20 cm by 6.3 cm) begins 3 cm above the point between the fingertips; open fingers reach 6 cm out.
HAND_BOX = (0.028, 0.105, 0.034)  # from this height above the point: half width along the closing axis, half depth
FINGER_BOX = (-0.01, 0.058, 0.012)
BELOW_TOP_M, ABOVE_GROUND_M = 0.035, 0.01  # where the fingertips hold a tall thing, and a flat one at least
FLAT_M = 0.04  # lower things are flat


def grasp_height(points: np.ndarray) -> float:
    """Height in m at which the fingertips hold an object, given its world points (N, 3)."""
    bottom, top = float(points[:, 2].min()), float(points[:, 2].max())
    height = top - bottom
    if height < FLAT_M:
        return bottom + max(height / 2, ABOVE_GROUND_M)
    return max(top - BELOW_TOP_M, bottom + 0.4 * height)


def box_meets(box: tuple[float, float, float], point: np.ndarray, yaw: float, other: np.ndarray) -> bool:
    """Whether a box of the hand (HAND_BOX, FINGER_BOX), grasping at `point` (3,), meets an object, (N, 3) points."""
    low_z, half_width, half_depth = box
    if other[:, 2].max() < point[2] + low_z:
        return False
    closing = np.array([-math.sin(yaw), math.cos(yaw)])
    offset = other[:, :2] - point[:2]
    across, aside = offset @ closing, offset @ np.array([closing[1], -closing[0]])
    # The box of the neighbour in the hand's axes: on the safe side.
    beside = across.min() < half_width and across.max() > -half_width
    return bool(beside and aside.min() < half_depth and aside.max() > -half_depth)
