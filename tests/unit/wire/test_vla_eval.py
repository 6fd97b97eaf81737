"""Messages of vla-eval against the package itself."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vla_eval.protocol.messages import Message as TheirMessage
from vla_eval.protocol.messages import MessageType as TheirType
from vla_eval.protocol.messages import make_hello_payload
from vla_eval.protocol.messages import pack_message as their_pack
from vla_eval.protocol.messages import unpack_message as their_unpack
from vla_eval.rotation import quat_to_axisangle
from vla_eval.specs import GRIPPER_CLOSE_NEG, ROTATION_EULER, DimSpec, check_specs

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import ProtocolError
from pokevla.simulation.geometry import quaternion_to_axis_angle
from pokevla.wire.arrays import VLA_EVAL, pack
from pokevla.wire.checks import Observation
from pokevla.wire.rotations import shortest_rotation
from pokevla.wire.vla_eval import (
    ACTION_FORMATS,
    OBSERVATION_FORMATS,
    Message,
    Wishes,
    hello,
    observation_payload,
    pack_message,
    read_actions,
    read_message,
    read_observation,
    wishes_of,
)

TURNED = np.array([0.1, 0.2, 0.3, 4.0, 1.0, -0.5, 0.02, -0.02], np.float32)  # an angle above pi
IMAGES = np.random.default_rng(1).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
SEEN = Observation(IMAGES, TURNED, "open the drawer")


SPECS = """
import json
from vla_eval.benchmarks.libero.benchmark import LIBEROBenchmark
benchmark = LIBEROBenchmark(send_wrist_image=True, send_state=True)
specs = benchmark.get_action_spec(), benchmark.get_observation_spec()
print(json.dumps([{name: spec.to_dict() for name, spec in entries.items()} for entries in specs]))
"""


def from_dicts(entries: dict[str, Any]) -> dict[str, DimSpec]:
    return {name: DimSpec.from_dict(entry) for name, entry in entries.items()}


def test_a_message_of_ours_is_read_by_vla_eval() -> None:
    payload = observation_payload(SEEN, Wishes(), LIBERO)

    theirs = their_unpack(pack_message(Message("observation", payload, 7)))

    assert (theirs.type, theirs.seq) == (TheirType.OBSERVATION, 7)
    assert list(theirs.payload["images"]) == ["agentview", "wrist"]
    np.testing.assert_array_equal(theirs.payload["images"]["wrist"], IMAGES[1])
    np.testing.assert_array_equal(theirs.payload["states"], TURNED)
    assert theirs.payload["task_description"] == "open the drawer"


def test_an_observation_of_vla_eval_is_read_by_us() -> None:
    payload = {"images": {"agentview": IMAGES[0], "wrist": IMAGES[1]}, "task_description": "go", "states": TURNED}

    message = read_message(their_pack(TheirMessage(TheirType.OBSERVATION, payload, seq=3)))
    seen = read_observation(message.payload, LIBERO)

    assert (message.type, message.seq) == ("observation", 3)
    np.testing.assert_array_equal(seen.images, IMAGES)
    np.testing.assert_array_equal(seen.proprio, TURNED)


def test_our_hello_is_compatible_with_its_libero_benchmark() -> None:
    said = hello("x", action_spec=ACTION_FORMATS, observation_spec=OBSERVATION_FORMATS)
    # In another process, because importing it chooses a GL platform for the process.
    done = subprocess.run([sys.executable, "-c", SPECS], capture_output=True, text=True, check=True)
    taken, given = (from_dicts(entries) for entries in json.loads(done.stdout))

    found = check_specs(from_dicts(said["action_spec"]), taken, from_dicts(said["observation_spec"]), given)

    assert found == []
    assert said["protocol_version"] == make_hello_payload()["protocol_version"]
    assert taken.keys() == ACTION_FORMATS.keys()


@given(st.tuples(*[st.floats(-1, 1, width=32)] * 4))
def test_the_short_rotation_is_that_of_vla_eval(values: tuple[float, ...]) -> None:
    quaternion, norm = np.array(values), float(np.linalg.norm(values))
    if norm < 0.1:
        return
    quaternion = quaternion / norm
    if np.linalg.norm(quaternion[:3]) < 1e-3:
        return  # both forms divide by the sine of half the angle

    ours = shortest_rotation(quaternion_to_axis_angle(quaternion))

    theirs = quat_to_axisangle(quaternion)
    opposite = np.allclose(np.linalg.norm(ours), np.pi, atol=1e-4) and np.allclose(ours, -theirs, atol=1e-3)
    assert np.allclose(ours, theirs, atol=1e-4) or opposite  # at pi the two axes are one rotation


@pytest.mark.parametrize(("robosuite", "angle"), [(True, np.linalg.norm(TURNED[3:6])), (False, 2 * np.pi)])
def test_proprio_has_the_form_that_the_server_asks_for(robosuite: bool, angle: float) -> None:
    payload = observation_payload(SEEN, Wishes(robosuite_rotation=robosuite), LIBERO)
    found = float(np.linalg.norm(payload["states"][3:6]))

    assert found == pytest.approx(angle if robosuite else angle - np.linalg.norm(TURNED[3:6]), rel=1e-5)
    np.testing.assert_array_equal(payload["states"][[0, 1, 2, 6, 7]], TURNED[[0, 1, 2, 6, 7]])


def test_only_what_the_server_asks_for_is_sent() -> None:
    wishes = wishes_of(hello("x", observation_params={"send_state": False}), LIBERO)

    payload = observation_payload(SEEN, wishes, LIBERO)

    assert wishes == Wishes(wrist=False, state=False, robosuite_rotation=False)
    assert list(payload["images"]) == ["agentview"]
    assert "states" not in payload


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"protocol_version": 2}, "version 2"),
        ({"observation_params": {"absolute_action": True}}, "absolute_action"),
        ({"observation_params": [1]}, "observation_params"),
        ({"action_spec": 3}, "action_spec"),
        ({"action_spec": {"gripper": GRIPPER_CLOSE_NEG.to_dict()}}, "gripper 'binary_close_negative'"),
        ({"action_spec": {"rotation": ROTATION_EULER.to_dict()}}, "rotation 'euler_xyz'"),
    ],
)
def test_a_server_for_other_trials_is_refused(more: dict[str, Any], reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        wishes_of({**hello("x"), **more}, LIBERO)

    assert reason in str(caught.value)


def test_a_server_that_declares_nothing_or_raw_is_taken() -> None:
    assert wishes_of(hello("x", action_spec={"actions": {"format": "raw"}, "gripper": {"format": "raw"}}), LIBERO)


def test_the_gripper_is_closed_or_open_as_in_vla_evals_benchmark() -> None:
    sent = np.zeros((3, 7))
    sent[:, 6] = [-0.01, 0.0, 0.3]

    assert read_actions({"actions": sent}, LIBERO)[:, 6].tolist() == [-1.0, 1.0, 1.0]
    assert read_actions({"action": sent[0].tolist()}, LIBERO).shape == (1, 7)


@pytest.mark.parametrize(
    ("actions", "reason"),
    [
        (np.zeros(6), "(1, 6); libero takes (K, 7)"),
        (np.zeros((0, 7)), "(0, 7)"),
        (np.zeros((1, 2, 7)), "(1, 2, 7)"),
        (np.full((2, 7), np.nan), "action 0 of the chunk has nan in column 0"),
        (np.array([[0, 0, 0, np.inf, 0, 0, 0.0]]), "inf in column 3"),
        (["1"] * 7, "should be numbers"),
        ([[1.0], [1.0, 2.0]], "not an array"),
        (None, "should be numbers"),
    ],
)
def test_actions_for_no_robot_are_refused(actions: Any, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_actions({"actions": actions}, LIBERO)

    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1], "not a map"),
        ({"type": "hello", "payload": {}}, "no 'seq'"),
        ({"type": "dance", "payload": {}, "seq": 1}, "'dance'"),
        ({"type": "hello", "payload": [], "seq": 1}, "payload"),
        ({"type": "hello", "payload": {}, "seq": "1"}, "seq"),
    ],
)
def test_a_message_without_the_envelope_is_refused(content: Any, reason: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_message(pack(content, VLA_EVAL))

    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": {"agentview": IMAGES[0]}}, "no 'wrist'; it has agentview"),
        ({"images": 3}, "images"),
        ({"images": {"agentview": IMAGES[0], "wrist": IMAGES[1, :3]}}, "different sizes"),
        ({"images": {"agentview": IMAGES[0], "wrist": IMAGES[1].astype(np.float32)}}, "float32"),
        ({"states": None}, "neither states nor state"),
        ({"states": "text"}, "should be numbers"),
        ({"states": np.zeros(7)}, "(7,); libero has (8,)"),
        ({"states": np.full(8, np.nan)}, "NaN"),
        ({"task_description": 3}, "instruction"),
        ({"task_description": " "}, "instruction"),
    ],
)
def test_an_observation_of_another_robot_is_refused(changes: dict[str, Any], reason: str) -> None:
    payload = {**observation_payload(SEEN, Wishes(), LIBERO), **changes}

    with pytest.raises(ProtocolError) as caught:
        read_observation(payload, LIBERO)

    assert reason in str(caught.value)
