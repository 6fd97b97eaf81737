"""Messages of vla-eval's model servers (allenai/vla-evaluation-harness 0.8, src/vla_eval/protocol and specs.py).

Every message is a map with type, payload, seq and timestamp. Client: HELLO, then per episode EPISODE_START, one
OBSERVATION per control step, EPISODE_END. Server: HELLO with what it wants to see and what its actions mean, one ACTION
per observation with the observation's seq, or ERROR.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import ProtocolError
from pokevla.wire.arrays import VLA_EVAL, pack, unpack
from pokevla.wire.checks import Observation, checked_actions, checked_observation, entry_of
from pokevla.wire.rotations import shortest_rotation

PROTOCOL_VERSION = 1
MessageType = Literal["hello", "observation", "action", "episode_start", "episode_end", "error"]
_PICTURES = {"base": "agentview", "wrist": "wrist"}
"""Our views of LIBERO -> names of vla-eval's LIBERO benchmark (src/vla_eval/benchmarks/libero/benchmark.py)."""
_STATES = ("states", "state")
"""Key of proprio: LIBERO's benchmark sends `states`, others `state`."""
_RAW = "raw"
"""Format of a component about which a server says nothing."""
ACTION_FORMATS = {
    "position": {"name": "position", "dims": 3, "format": "delta_xyz", "range": [-1, 1]},
    "rotation": {"name": "rotation", "dims": 3, "format": "axis_angle", "range": [-3.15, 3.15]},
    "gripper": {"name": "gripper", "dims": 1, "format": "binary_close_positive", "range": [-1, 1]},
}
"""LIBERO's actions in vla-eval's words: the gripper opens at -1 and closes at +1."""
OBSERVATION_FORMATS = {
    "agentview": {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"},
    "wrist": {"name": "image", "dims": 0, "format": "rgb_hwc_uint8"},
    "state": {"name": "state", "dims": 8, "format": "eef_pos3_axisangle3_gripper2"},
    "language": {"name": "language", "dims": 0, "format": "language"},
}


@dataclass(frozen=True)
class Message:
    """One message. An answer repeats the `seq` of what it answers."""

    type: MessageType
    payload: dict[str, Any]
    seq: int


@dataclass(frozen=True)
class Wishes:
    """What a server wants to see (`observation_params` of its HELLO), as vla-eval's LIBERO benchmark understands it."""

    wrist: bool = True
    """`send_wrist_image`."""
    state: bool = True
    """`send_state`."""
    robosuite_rotation: bool = True
    """`quat_no_antipodal`: proprio with angles up to 2 pi, robosuite's form; otherwise at most pi."""
    env_seed: int = 0

    def to_payload(self) -> dict[str, Any]:
        """As a server writes them into its HELLO."""
        return {
            "send_wrist_image": self.wrist,
            "send_state": self.state,
            "quat_no_antipodal": self.robosuite_rotation,
            "env_seed": self.env_seed,
        }


def pack_message(message: Message) -> bytes:
    """The bytes of a message."""
    content = {"type": message.type, "payload": message.payload, "seq": message.seq, "timestamp": time.time()}
    return pack(content, VLA_EVAL)


def read_message(data: bytes) -> Message:
    """The message of bytes. Raises ProtocolError if it is none, lacks a field or has an unknown type."""
    content = unpack(data, VLA_EVAL)
    if not isinstance(content, dict):
        raise ProtocolError(f"the message is a {type(content).__name__}, not a map.")
    kind, payload, seq = (entry_of(content, key) for key in ("type", "payload", "seq"))
    if kind not in get_args(MessageType):
        raise ProtocolError(f"the message has the type {str(kind)[:40]!r}; known: {', '.join(get_args(MessageType))}.")
    if not isinstance(payload, dict) or type(seq) is not int:
        raise ProtocolError("the message's payload is not a map, or its seq not a number.")
    return Message(kind, payload, seq)


def hello(version: str, **more: Any) -> dict[str, Any]:
    """Payload of a HELLO. `version`: of the program that says it."""
    return {"harness_version": version, "protocol_version": PROTOCOL_VERSION, **more}


def wishes_of(hello_payload: Mapping[str, Any], robot: Embodiment) -> Wishes:
    """What the server of a HELLO wants to see.

    Raises:
        ProtocolError: its protocol has another version, it wants what our trials do not offer, or its actions are
            declared to be others than the robot's.
    """
    version = hello_payload.get("protocol_version")
    if version != PROTOCOL_VERSION:
        raise ProtocolError(f"its protocol has version {str(version)[:20]}; we speak version {PROTOCOL_VERSION}.")
    params = hello_payload.get("observation_params") or {}
    if not isinstance(params, dict):
        raise ProtocolError("observation_params of its HELLO is not a map.")
    if params.get("absolute_action"):
        raise ProtocolError(f"it wants absolute_action; {robot.name} takes {robot.control_mode.replace('_', ' ')}.")
    if robot == LIBERO:
        _refuse_other_actions(hello_payload.get("action_spec") or {})
    return Wishes(
        wrist=bool(params.get("send_wrist_image", False)),
        state=bool(params.get("send_state", False)),
        robosuite_rotation=bool(params.get("quat_no_antipodal", False)),
    )


def _refuse_other_actions(declared: Any) -> None:
    if not isinstance(declared, dict):
        raise ProtocolError("action_spec of its HELLO is not a map.")
    for name, ours in ACTION_FORMATS.items():
        theirs = declared.get(name)
        form = theirs.get("format") if isinstance(theirs, dict) else _RAW
        if form not in (ours["format"], _RAW):
            raise ProtocolError(f"its actions have {name} {str(form)[:40]!r}; LIBERO takes {ours['format']!r}.")


def picture_names(robot: Embodiment) -> tuple[str, ...]:
    """Names of the pictures in an observation, in the order of the robot's views."""
    return tuple(_PICTURES[view] for view in robot.views) if robot == LIBERO else robot.views


def observation_payload(observation: Observation, wishes: Wishes, robot: Embodiment) -> dict[str, Any]:
    """Payload of an OBSERVATION, as vla-eval's LIBERO benchmark would send it."""
    pictures = dict(zip(picture_names(robot), observation.images, strict=True))
    if not wishes.wrist:
        pictures = dict(list(pictures.items())[:1])
    payload: dict[str, Any] = {"images": pictures, "task_description": observation.instruction}
    if wishes.state:
        state = observation.proprio
        if not wishes.robosuite_rotation and robot == LIBERO:
            state = np.concatenate([state[:3], shortest_rotation(state[3:6]), state[6:]])
        payload["states"] = state
    return payload


def read_observation(payload: Mapping[str, Any], robot: Embodiment) -> Observation:
    """The observation of a payload. Raises ProtocolError if something is missing or does not fit the robot."""
    images = entry_of(payload, "images")
    if not isinstance(images, dict):
        raise ProtocolError("images of the observation is not a map.")
    pictures = [(name, entry_of(images, name)) for name in picture_names(robot)]
    state = next((payload[key] for key in _STATES if key in payload), None)
    if state is None:
        raise ProtocolError(f"the observation has neither {' nor '.join(_STATES)}: set send_state for the benchmark.")
    return checked_observation(pictures, state, payload.get("task_description"), robot)


def read_actions(payload: Mapping[str, Any], robot: Embodiment) -> np.ndarray:
    """The actions (K, A) of an ACTION; K is 1 for servers that divide chunks themselves.

    As vla-eval's LIBERO benchmark does, a gripper command below 0 becomes -1 and any other +1.

    Raises:
        ProtocolError: they are missing or do not fit the robot.
    """
    key = "actions" if "actions" in payload else "action"
    actions = checked_actions(entry_of(payload, key), robot)
    if robot == LIBERO:
        actions[:, 6] = np.where(actions[:, 6] < 0, -1.0, 1.0)
    return actions
