"""Messages of openpi's policy servers (Physical-Intelligence/openpi, src/openpi/serving/websocket_policy_server.py).

After the handshake the server sends a map of metadata. Then one observation is answered by one map with the actions, or
by a text frame with an error, after which the server closes. Observations are flat maps whose keys the policy chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import ProtocolError
from pokevla.wire.arrays import OPENPI, pack, unpack
from pokevla.wire.checks import Observation, checked_actions, checked_observation, entry_of


@dataclass(frozen=True)
class ObservationKeys:
    """The keys of observations and answers. Defaults: those of openpi's LIBERO policies (examples/libero/main.py)."""

    images: tuple[str, ...] = ("observation/image", "observation/wrist_image")
    """One per view of the robot, in its order."""
    proprio: str = "observation/state"
    instruction: str = "prompt"
    actions: str = "actions"


def keys_of(robot: Embodiment) -> ObservationKeys:
    """The keys that a server of ours expects: for LIBERO those of openpi, for other robots `observation/VIEW`."""
    if robot == LIBERO:
        return ObservationKeys()
    return ObservationKeys(images=tuple(f"observation/{view}" for view in robot.views))


def pack_observation(observation: Observation, keys: ObservationKeys) -> bytes:
    """The message of one observation. Pictures keep their size: openpi's policies resize with padding themselves."""
    pictures = zip(keys.images, observation.images, strict=True)
    state = {keys.proprio: observation.proprio, keys.instruction: observation.instruction}
    return pack({**dict(pictures), **state}, OPENPI)


def read_observation(data: bytes, keys: ObservationKeys, robot: Embodiment) -> Observation:
    """The observation of a message. Raises ProtocolError if a key is missing or does not fit the robot."""
    message = read_map(data)
    pictures = [(key, entry_of(message, key)) for key in keys.images]
    return checked_observation(pictures, entry_of(message, keys.proprio), entry_of(message, keys.instruction), robot)


def pack_answer(actions: np.ndarray, keys: ObservationKeys, infer_ms: float) -> bytes:
    """The answer to an observation: the chunk (K, A) and how long the policy took."""
    return pack({keys.actions: actions, "server_timing": {"infer_ms": infer_ms}}, OPENPI)


def read_answer(data: bytes, keys: ObservationKeys, robot: Embodiment) -> np.ndarray:
    """The actions (K, A) of an answer. Raises ProtocolError if they are missing or do not fit the robot."""
    return checked_actions(entry_of(read_map(data), keys.actions), robot)


def pack_metadata(metadata: Mapping[str, Any]) -> bytes:
    """The first message of a server."""
    return pack(dict(metadata), OPENPI)


def read_map(data: bytes) -> dict[Any, Any]:
    """A message that has to be a map. Raises ProtocolError if it is not."""
    message = unpack(data, OPENPI)
    if not isinstance(message, dict):
        raise ProtocolError(f"the message is a {type(message).__name__}, not a map.")
    return message
