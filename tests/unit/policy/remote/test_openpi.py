"""A policy on an openpi server: what it is sent, and how servers that misbehave are named."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.sync.server import ServerConnection

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import PolicyServerError, UsageError
from pokevla.policy.remote.connection import ServerAddress
from pokevla.policy.remote.openpi import OpenpiPolicy
from pokevla.wire.openpi import ObservationKeys
from tests.openpi_package import msgpack_numpy
from tests.policy_servers import openpi_server, running

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 2, 8, 8, 3), dtype=np.uint8)
PROPRIO = np.arange(24, dtype=np.float32).reshape(3, 8)
METADATA = msgpack_numpy.packb({})
LIMIT_S = 20.0
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def connect(url: str, timeout_s: float = LIMIT_S, max_bytes: int = 1 << 20) -> OpenpiPolicy:
    return OpenpiPolicy.connect(ServerAddress("pi", url, timeout_s, max_bytes), LIBERO, ObservationKeys())


def act(policy: OpenpiPolicy, rows: int = 1) -> np.ndarray:
    return policy.act(IMAGES[:rows], PROPRIO[:rows], ["go", "stop", "turn"][:rows], [0] * rows)


def test_the_server_sees_openpis_libero_observation_and_its_actions_come_back() -> None:
    seen: list[dict[str, Any]] = []

    def infer(observation: dict[str, Any]) -> dict[str, Any]:
        seen.append(observation)
        return {"actions": np.full((10, 7), observation["observation/state"][0], np.float32)}

    with openpi_server(infer) as url:
        policy = connect(url)
        chunks = act(policy, 3)
        policy.close()

    assert chunks.shape == (3, 10, 7)
    assert chunks[:, 0, 0].tolist() == [0.0, 8.0, 16.0]
    assert [entry["prompt"] for entry in seen] == ["go", "stop", "turn"]
    assert list(seen[0]) == ["observation/image", "observation/wrist_image", "observation/state", "prompt"]
    np.testing.assert_array_equal(seen[1]["observation/wrist_image"], IMAGES[1, 1])
    np.testing.assert_array_equal(seen[2]["observation/state"], PROPRIO[2])
    assert policy.metadata == {"name": "toy"}


def test_copies_that_fill_a_batch_are_asked_once() -> None:
    asked: list[int] = []

    def infer(observation: dict[str, Any]) -> dict[str, Any]:
        asked.append(1)
        return {"actions": np.zeros((2, 7))}

    with openpi_server(infer) as url:
        policy = connect(url)
        chunks = policy.act(IMAGES[[0, 1, 1, 1]], PROPRIO[[0, 1, 1, 1]], ["go"] * 4)
        policy.close()

    assert (len(asked), chunks.shape) == (2, (4, 2, 7))


def test_other_keys_can_be_named_and_have_to_fit_the_views() -> None:
    keys = ObservationKeys(("cam", "hand"), "state", "task", "action_chunk")

    def infer(observation: dict[str, Any]) -> dict[str, Any]:
        return {"action_chunk": np.full((1, 7), len(observation["hand"]))}

    with openpi_server(infer) as url:
        policy = OpenpiPolicy.connect(ServerAddress("pi", url, LIMIT_S), LIBERO, keys)
        assert act(policy)[0, 0, 0] == 8
        policy.close()
        with pytest.raises(UsageError, match="views base, wrist"):
            OpenpiPolicy.connect(ServerAddress("pi", url, LIMIT_S), LIBERO, ObservationKeys(("cam",)))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"actions": np.zeros((4, 8))}, "(4, 8); libero takes (K, 7)"),
        ({"actions": np.full((4, 7), np.nan)}, "action 0 of the chunk has nan"),
        ({"action": np.zeros((4, 7))}, "no 'actions'; it has action, server_timing"),
        ({"actions": "left"}, "should be numbers"),
    ],
)
def test_actions_for_another_robot_name_the_policy_and_its_server(answer: dict[str, Any], reason: str) -> None:
    with openpi_server(lambda _: answer) as url:
        policy = connect(url)
        with pytest.raises(PolicyServerError) as caught:
            act(policy)
        policy.close()

    assert f"The server of policy pi at {url} sent what cannot be used" in str(caught.value)
    assert reason in str(caught.value)


def test_a_late_answer_is_not_taken_for_that_to_the_next_observation() -> None:
    late = threading.Event()

    def infer(_: dict[str, Any]) -> dict[str, Any]:
        late.wait(LIMIT_S)
        return {"actions": np.zeros((1, 7))}

    with openpi_server(infer) as url:
        policy = connect(url, timeout_s=1.0)
        with pytest.raises(PolicyServerError, match="did not answer within 1 s"):
            act(policy)
        late.set()
        with pytest.raises(PolicyServerError, match="is not asked again after an earlier error"):
            act(policy)
        policy.close()


def test_an_error_of_the_server_is_passed_on() -> None:
    def infer(_: dict[str, Any]) -> dict[str, Any]:
        raise ValueError("no such camera")

    with openpi_server(infer) as url:
        policy = connect(url)
        with pytest.raises(PolicyServerError, match="reported an error: ValueError: no such camera"):
            act(policy)
        with pytest.raises(PolicyServerError, match=r"closed the connection \(code 1011|after an earlier error"):
            act(policy)
        policy.close()


def frame_of_two_gigabytes(connection: ServerConnection) -> None:
    connection.socket.sendall(b"\x82\x7f" + (2 << 30).to_bytes(8, "big"))
    while connection.socket.send(b"\0" * 65536):
        pass


def after_metadata(then: Callable[[ServerConnection], None]) -> Callable[[ServerConnection], None]:
    """A server that begins well and then takes one observation."""

    def handler(connection: ServerConnection) -> None:
        connection.send(METADATA)
        connection.recv()
        then(connection)

    return handler


def wait(connection: ServerConnection) -> None:
    connection.recv()  # until the client leaves


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (wait, "did not answer within 1 s"),
        (lambda connection: connection.close(1001, "restart"), "closed the connection (code 1001: restart)"),
        (lambda connection: connection.socket.shutdown(socket.SHUT_RDWR), "closed the connection"),
        (lambda connection: connection.send("garbage"), "reported an error: garbage"),
        (lambda connection: connection.send(""), "reported an error: an empty text"),
        (lambda connection: connection.send(b"\xc1\xc1"), "2 bytes are not a message of openpi"),
        (lambda connection: connection.send(msgpack.packb([1])), "a list, not a map"),
        (lambda connection: connection.socket.sendall(b"\xff" * 64), "no websocket message"),
        (lambda connection: connection.send(b"\0" * (2 << 20)), "more than 1048576 bytes"),
        (lambda connection: connection.send([b"\0" * 65536] * 40), "more than 1048576 bytes"),
        (frame_of_two_gigabytes, "more than 1048576 bytes"),
    ],
    ids=[
        "silent", "closes", "cut", "text", "empty", "bytes", "list", "frames", "too-big", "fragments", "two-gigabytes",
    ],
)  # fmt: skip
def test_a_server_that_misbehaves_ends_the_query_with_its_name(
    then: Callable[[ServerConnection], None], reason: str
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with running(after_metadata(then)) as url:
        policy = connect(url, timeout_s=1.0 if then is wait else LIMIT_S)
        with pytest.raises(PolicyServerError) as caught:
            act(policy)
        policy.close()

    assert f"The server of policy pi at {url}" in str(caught.value)
    assert reason in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


def test_a_server_that_takes_no_observation_ends_in_time() -> None:
    large = np.zeros((1, 2, 2000, 2000, 3), np.uint8)  # more than the buffers of both sockets
    ended = threading.Event()

    def greet_and_read_no_more(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            protocol = ServerProtocol()
            protocol.receive_data(client.recv(65536))
            (request,) = protocol.events_received()
            assert isinstance(request, Request)
            protocol.send_response(protocol.accept(request))
            protocol.send_binary(METADATA)
            client.sendall(b"".join(protocol.data_to_send()))
            ended.wait(3 * LIMIT_S)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=greet_and_read_no_more, args=(listener,))
        thread.start()
        policy = connect(f"ws://127.0.0.1:{listener.getsockname()[1]}", timeout_s=1.0)
        with pytest.raises(PolicyServerError, match="did not take an observation within 1 s"):
            policy.act(large, PROPRIO[:1], ["go"])
        started = time.monotonic()
        policy.close()
        assert time.monotonic() - started < LIMIT_S
        ended.set()
        thread.join()


def test_pings_are_answered_while_the_simulator_steps() -> None:
    answered = threading.Event()

    def handler(connection: ServerConnection) -> None:
        connection.send(METADATA)
        if connection.ping().wait(LIMIT_S):
            answered.set()

    with running(handler) as url:
        policy = connect(url)
        assert answered.wait(LIMIT_S)  # nobody asks the policy meanwhile
        policy.close()


@pytest.mark.parametrize("first", ["hello", b"\xc1", msgpack.packb(3)], ids=["text", "bytes", "number"])
def test_a_server_that_does_not_begin_as_openpi_is_refused(first: Any) -> None:
    with running(lambda connection: connection.send(first)) as url, pytest.raises(PolicyServerError, match="policy pi"):
        connect(url)


def test_nobody_there_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        with pytest.raises(PolicyServerError, match=r"cannot be reached .*\. Start it, or correct the url\."):
            connect(f"ws://127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.parametrize(("answer", "reason"), [(NOT_FOUND, "no websocket server"), (b"", "did not complete")])
def test_a_server_of_another_kind_is_named(answer: bytes, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = threading.Event()

        def accept() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(answer)
                done.wait(LIMIT_S)

        thread = threading.Thread(target=accept)
        thread.start()
        with pytest.raises(PolicyServerError, match=reason):
            connect(f"ws://127.0.0.1:{listener.getsockname()[1]}", timeout_s=2.0)
        done.set()
        thread.join()
