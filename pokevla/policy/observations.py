"""Checks of observations: what a policy is given must be what its robot sees, before a model makes numbers of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pokevla.embodiment.description import Embodiment
from pokevla.errors import UsageError


def check_observations(
    robot: Embodiment, images: np.ndarray | None, proprio: np.ndarray, instructions: Sequence[str]
) -> None:
    """Refuse observations that are not those of a robot.

    Args:
        images: (N, V, H, W, 3) uint8 with N, H and W at least 1, or None for a policy that needs none.
        proprio: (N, P) finite numbers.
        instructions: N of them.

    Raises:
        UsageError: a type or shape is wrong, or the numbers of observations differ. Says what the robot has.
    """
    if images is not None:
        _check_images(robot, images)
    if proprio.ndim != 2 or proprio.shape[1] != robot.proprio_width:
        fields = ", ".join(f"{field.name} ({field.size}, {field.unit})" for field in robot.proprio)
        raise UsageError(
            f"proprio has shape {proprio.shape}; this policy ({robot.name}) takes (N, {robot.proprio_width}).",
            f"Give the fields {fields}, in this order.",
        )
    if not np.isfinite(proprio).all():
        raise UsageError("proprio holds a NaN or an infinity.", "Check the robot's sensors.")
    counts = {"proprio": len(proprio), "instructions": len(instructions)}
    if images is not None:
        counts = {"images": len(images), **counts}
    if len(set(counts.values())) > 1 or len(instructions) == 0:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise UsageError(f"The observations do not match: {listed}.", "Give one of each per observation, at least one.")


def _check_images(robot: Embodiment, images: np.ndarray) -> None:
    shape = f"images has shape {images.shape}; this policy ({robot.name}) takes (N, {robot.num_views}, H, W, 3)."
    if images.ndim != 5 or images.shape[1] != robot.num_views:
        raise UsageError(shape, f"Give the views {', '.join(robot.views)}, in this order.")
    if images.shape[-1] != 3:
        remedy = "Put the colours last." if images.shape[2] == 3 else "Give RGB without an alpha channel."
        raise UsageError(shape, remedy)
    if 0 in images.shape:
        raise UsageError(shape, "Give images with at least one pixel.")
    if images.dtype != np.uint8:
        raise UsageError(
            f"images has the type {images.dtype}; this policy takes uint8, 0 to 255.",
            "Give the camera's own pixels; the policy crops, resizes and normalises them.",
        )
