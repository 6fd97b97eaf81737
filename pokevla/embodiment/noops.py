"""OpenVLA-OFT's no-op rule, which selects the frames of a demonstration to keep."""

from __future__ import annotations

import numpy as np

from pokevla.embodiment.libero import LIBERO

THRESHOLD = 1e-4
"""Minimum norm of the arm's columns (openvla-oft regenerate_libero_dataset.py, is_noop)."""


def moving_frames(actions: np.ndarray) -> np.ndarray:
    """(T,) bool: frames whose raw LIBERO action (T,A) has an effect.

    A frame is dropped if its arm action is (nearly) zero and its gripper command equals that of the previous kept
    frame. For the first frame only the arm action counts.
    """
    (hand,) = LIBERO.grippers
    still = np.linalg.norm(actions[:, np.array(LIBERO.action_mask)], axis=1) < THRESHOLD
    keep = np.ones(len(actions), dtype=bool)
    previous: float | None = None
    for t in range(len(actions)):
        gripper = float(actions[t, hand.column])
        keep[t] = not (still[t] and (previous is None or gripper == previous))
        if keep[t]:
            previous = gripper
    return keep
