"""The two forms of a rotation vector in proprio, and how to pass from one to the other.

robosuite's `quat2axisangle` (utils/transform_utils.py) takes the quaternion as it comes: angles from 0 to 2 pi.
OpenVLA-OFT and openpi train on that form, and so do we. vla-eval's `quat_to_axisangle` (src/vla_eval/rotation.py) first
flips a quaternion with negative real part: angles from 0 to pi. Both describe the same rotation.
"""

from __future__ import annotations

import numpy as np


def shortest_rotation(rotation: np.ndarray) -> np.ndarray:
    """(3,) axis times angle in rad, 0 to 2 pi -> the same rotation with an angle of at most pi."""
    angle = float(np.linalg.norm(rotation))
    if angle <= np.pi:
        return rotation
    return (rotation * ((angle - 2 * np.pi) / angle)).astype(rotation.dtype)
