"""Checks of what policies and their clients send, before a robot or a model sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pokevla.embodiment.description import Embodiment
from pokevla.errors import ProtocolError
from pokevla.wire.pictures import MAX_SIDE

MAX_BYTES = 16 * 1024 * 1024
"""Largest message that is read on either side: four pictures of 1024 px, uncompressed, take 13 MB."""
MAX_CHUNK = 4096
"""Longest action chunk."""


@dataclass(frozen=True)
class Observation:
    """One observation as a policy takes it."""

    images: np.ndarray  # (V, H, W, 3) uint8, upright
    proprio: np.ndarray  # (P,) float32, raw
    instruction: str


def checked_actions(value: Any, robot: Embodiment) -> np.ndarray:
    """The action chunk of an answer: (K, A) float64, finite. One action (A,) is a chunk of one.

    Raises:
        ProtocolError: it is not a chunk of numbers, has another width than the robot's actions, or holds a NaN.
    """
    actions = _numbers(value, "the actions")
    if actions.ndim == 1:
        actions = actions[None]
    width = robot.action_width
    if actions.ndim != 2 or actions.shape[1] != width or not 1 <= len(actions) <= MAX_CHUNK:
        raise ProtocolError(
            f"the actions have the shape {actions.shape}; {robot.name} takes (K, {width}), K from 1 to {MAX_CHUNK}."
        )
    bad = np.argwhere(~np.isfinite(actions))
    if len(bad):
        row, column = (int(place) for place in bad[0])
        raise ProtocolError(f"action {row} of the chunk has {actions[row, column]} in column {column}.")
    return actions


def checked_observation(
    pictures: Sequence[tuple[str, Any]], proprio: Any, instruction: Any, robot: Embodiment
) -> Observation:
    """An observation from the parts of a message: pictures (H, W, 3) uint8 by name in the order of the robot's views,
    proprio (P,), instruction.

    Raises:
        ProtocolError: a part has another type, shape or size, or a number is not finite. Names the part.
    """
    images = [_picture(name, picture) for name, picture in pictures]
    if len({image.shape for image in images}) > 1:
        sizes = ", ".join(f"{name} {image.shape}" for (name, _), image in zip(pictures, images, strict=True))
        raise ProtocolError(f"the pictures have different sizes: {sizes}.")
    state = _numbers(proprio, "the proprio")
    if state.shape != (robot.proprio_width,):
        fields = ", ".join(f"{field.name} ({field.size}, {field.unit})" for field in robot.proprio)
        raise ProtocolError(
            f"the proprio has the shape {state.shape}; {robot.name} has ({robot.proprio_width},): {fields}."
        )
    if not np.isfinite(state).all():
        raise ProtocolError("the proprio holds a NaN or an infinity.")
    if not isinstance(instruction, str) or not instruction.strip():
        raise ProtocolError("the instruction is missing or not text.")
    return Observation(np.stack(images), state.astype(np.float32), instruction)


def entry_of(message: Mapping[Any, Any], key: str) -> Any:
    """The entry `key` of a message.

    Raises:
        ProtocolError: it is not there. Says what is.
    """
    if key not in message:
        there = ", ".join(str(name)[:40] for name in list(message)[:10]) or "nothing"
        raise ProtocolError(f"the message has no {key!r}; it has {there}.")
    return message[key]


def _picture(name: str, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
        found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ProtocolError(f"the picture {name} is {found}; uint8 (H, W, 3) is needed.")
    if not all(1 <= side <= MAX_SIDE for side in value.shape[:2]):
        raise ProtocolError(f"the picture {name} has the shape {value.shape}; 1 to {MAX_SIDE} px are allowed.")
    return value


def _numbers(value: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:  # a ragged list
        raise ProtocolError(f"{what} are not an array ({error}).") from error
    if array.dtype.kind not in "iuf":
        raise ProtocolError(f"{what} should be numbers, not {type(value).__name__} of {array.dtype}.")
    return array.astype(np.float64)
