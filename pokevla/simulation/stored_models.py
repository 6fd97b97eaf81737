"""Poses of fixtures from the model XML stored with a demonstration, whose states do not include them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any, NamedTuple

import numpy as np

from pokevla.errors import DataError

# MuJoCo writes six digits: a pose that differs by less is the same and is not changed.
_XML_ROUNDING = 1e-5


class BodyPose(NamedTuple):
    """Pose of a body in its parent's frame: `position` (3,) m, `quaternion` (4,) wxyz."""

    position: np.ndarray
    quaternion: np.ndarray


def stored_poses(model_xml: str) -> dict[str, BodyPose]:
    """Pose of every named body directly below the world of a MuJoCo model (an XML that MuJoCo itself saved).

    Raises DataError if the text is not such a model.
    """
    remedy = "Attribute `model_file` should hold the XML of the demonstration's model, as LIBERO writes it."
    try:
        world = ElementTree.fromstring(model_xml).find("worldbody")
    except ElementTree.ParseError as error:
        raise DataError(f"The stored model is not XML ({error}).", remedy) from error
    if world is None:
        raise DataError("The stored model has no worldbody.", remedy)
    # MuJoCo omits defaults: the origin and no rotation.
    return {
        body.get("name", ""): BodyPose(_numbers(body.get("pos", "0 0 0")), _numbers(body.get("quat", "1 0 0 0")))
        for body in world.findall("body")
    }


def place_body(model: Any, name: str, pose: BodyPose) -> None:
    """Move a body of MuJoCo's `model` to `pose`, unless its pose is already equal up to the XML's rounding."""
    body = model.body(name)
    if not np.allclose(body.pos, pose.position, rtol=0.0, atol=_XML_ROUNDING):
        body.pos[:] = pose.position
    if not np.allclose(body.quat, pose.quaternion, rtol=0.0, atol=_XML_ROUNDING):
        body.quat[:] = pose.quaternion


def _numbers(text: str) -> np.ndarray:
    return np.array([float(word) for word in text.split()])
