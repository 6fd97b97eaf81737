"""A policy of ours behind the protocols: asked by openpi's client and judged by vla-eval itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vla_eval.api
from ruamel.yaml import YAML
from vla_eval.protocol.messages import Message as TheirMessage
from vla_eval.protocol.messages import MessageType, make_hello_payload, pack_message, unpack_message
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import EnvironmentSetupError, UsageError
from pokevla.policy.remote.connection import ServerAddress
from pokevla.policy.remote.vla_eval import VlaEvalPolicy
from pokevla.serving.server import PolicyServer
from pokevla.wire.checks import MAX_BYTES
from tests.openpi_package import WebsocketClientPolicy, msgpack_numpy
from tests.unit.embodiment.robots import TWO_HANDED

ROOT = Path(__file__).resolve().parents[3]
IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


class Mover:
    """Moves along x by a tenth of what is left to 1, in chunks of 4. Odd instructions make it fail."""

    embodiment = LIBERO
    needs_images = True

    def __init__(self) -> None:
        self.seen: list[tuple[np.ndarray, np.ndarray, str, int]] = []

    def act(
        self,
        images: np.ndarray | None,
        proprio: np.ndarray,
        instructions: Sequence[str],
        steps: Sequence[int] | None = None,
    ) -> np.ndarray:
        assert images is not None
        assert steps is not None
        self.seen.append((images[0], proprio[0], instructions[0], steps[0]))
        if instructions[0] == "break":
            raise ZeroDivisionError("in the model")
        if instructions[0] == "refuse":
            raise UsageError("The instruction is too long.", "Shorten it.")
        actions = np.zeros((1, 4, 7))
        actions[0, :, 0] = 0.02 + 0.1 * (1 - proprio[0, 0])
        actions[0, :, 6] = np.nan if instructions[0] == "nan" else -1.0
        return actions


@pytest.fixture
def mover() -> Mover:
    return Mover()


@pytest.fixture
def openpi(mover: Mover) -> Iterator[str]:
    with PolicyServer(mover, "openpi").running() as url:
        yield url


@pytest.fixture
def vla(mover: Mover) -> Iterator[str]:
    with PolicyServer(mover, "vla-eval", actions_per_query=3).running() as url:
        yield url


def observation(**changes: Any) -> dict[str, Any]:
    state = np.linspace(0, 1, 8)
    return {
        "observation/image": IMAGE, "observation/wrist_image": IMAGE[::-1], "observation/state": state,
        "prompt": "go", **changes,
    }  # fmt: skip


def test_openpis_own_client_gets_the_chunk(openpi: str, mover: Mover) -> None:
    client = WebsocketClientPolicy(openpi)

    answer = client.infer(observation())

    assert client.get_server_metadata() == {"embodiment": "libero", "views": ["base", "wrist"]}
    np.testing.assert_allclose(answer["actions"][:, 0], [0.12] * 4)
    assert answer["server_timing"]["infer_ms"] > 0
    images, proprio, instruction, _ = mover.seen[0]
    np.testing.assert_array_equal(images, [IMAGE, IMAGE[::-1]])
    np.testing.assert_allclose(proprio, np.linspace(0, 1, 8), rtol=1e-6)
    assert (instruction, proprio.dtype) == ("go", np.float32)
    assert client.infer(observation())["actions"].shape == (4, 7)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"observation/state": np.zeros(7)}, r"proprio has the shape \(7,\); libero has \(8,\)"),
        ({"observation/state": np.full(8, np.inf)}, "NaN or an infinity"),
        ({"observation/image": IMAGE.astype(np.float32)}, "observation/image is float32"),
        ({"observation/wrist_image": IMAGE[:2]}, "different sizes"),
        ({"prompt": 3}, "instruction"),
        ({"prompt": "refuse"}, "The instruction is too long. Shorten it."),
        ({"prompt": "break"}, "The policy failed .ZeroDivisionError: in the model."),
        ({"prompt": "nan"}, "NaN or an infinity"),
    ],
)
def test_a_bad_observation_is_answered_in_openpis_way_and_others_are_served(
    openpi: str, changes: dict[str, Any], reason: str
) -> None:
    other, client = WebsocketClientPolicy(openpi), WebsocketClientPolicy(openpi)

    with pytest.raises(RuntimeError, match=f"(?s)Error in inference server:.*{reason}"):
        client.infer(observation(**changes))

    assert other.infer(observation())["actions"].shape == (4, 7)


GARBAGE = [b"", b"\xc1", b"\x93\x01", "text", os.urandom(5000), msgpack_numpy.packb([1]), msgpack_numpy.packb({})]


@pytest.mark.parametrize("message", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_answered_and_survived(openpi: str, vla: str, message: Any) -> None:
    with connect(openpi) as client:
        client.recv(5)
        client.send(message)
        assert isinstance(client.recv(5), str)
    with connect(vla) as client:
        client.send(message)
        answer = client.recv(5)
        assert isinstance(answer, bytes)
        assert unpack_message(answer).type is MessageType.ERROR
        assert say_hello(client).type is MessageType.HELLO  # on the same connection
    assert WebsocketClientPolicy(openpi).infer(observation())["actions"].shape == (4, 7)


def test_too_big_a_message_closes_its_connection_only(vla: str) -> None:
    with connect(vla, max_size=None) as other, connect(vla) as client:
        client.send(b"\0" * (MAX_BYTES + 1))
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(5)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
        assert say_hello(other).type is MessageType.HELLO


def test_an_announcement_of_two_gigabytes_takes_no_memory(vla: str) -> None:
    with connect(vla) as client:
        client.socket.sendall(b"\x82\xff" + (2 << 30).to_bytes(8, "big") + b"\0" * 4)
        with pytest.raises(ConnectionClosed):
            client.recv(5)
    with connect(vla) as client:
        assert say_hello(client).type is MessageType.HELLO


def say_hello(client: ClientConnection) -> TheirMessage:
    client.send(pack_message(TheirMessage(MessageType.HELLO, make_hello_payload(), seq=1)))
    answer = client.recv(5)
    assert isinstance(answer, bytes)
    return unpack_message(answer)


@pytest.mark.parametrize("path", ["healthz", "health"])
def test_health_checks_of_both_projects_are_answered(openpi: str, path: str) -> None:
    with urllib.request.urlopen(f"http{openpi.removeprefix('ws')}/{path}", timeout=5) as answer:
        assert answer.status == 200


def test_a_web_page_cannot_ask(openpi: str) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect(openpi, origin="http://example.org")  # type: ignore[arg-type]


def test_a_policy_of_another_robot_is_asked_by_its_own_views() -> None:
    class Hands(Mover):
        embodiment = TWO_HANDED

        def act(self, images: Any, proprio: Any, instructions: Any, steps: Any = None) -> np.ndarray:
            return np.full((1, 2, 9), images[0, :, 0, 0, 0].sum())

    pictures = [np.full((4, 4, 3), value, np.uint8) for value in (1, 2, 4)]
    with PolicyServer(Hands(), "openpi").running() as url:
        state = {"observation/state": np.zeros(10), "prompt": "go"}
        views = dict(zip(("observation/front", "observation/left", "observation/right"), pictures, strict=True))
        assert WebsocketClientPolicy(url).infer({**views, **state})["actions"].tolist() == [[7] * 9] * 2
    with PolicyServer(Hands(), "vla-eval").running() as url:
        policy = VlaEvalPolicy.connect(ServerAddress("hands", url, 20.0), TWO_HANDED)
        images, proprio = np.stack(pictures)[None], np.zeros((1, 10), np.float32)
        assert policy.act(images, proprio, ["go"], [0]).tolist() == [[[7] * 9]]
        policy.close()


def test_a_taken_port_is_named(openpi: str, mover: Mover) -> None:
    port = int(openpi.rpartition(":")[2])

    with (
        pytest.raises(EnvironmentSetupError, match=f"127.0.0.1:{port}"),
        PolicyServer(mover, "openpi", port=port).running(),
    ):
        pass


def judge(url: str, folder: Path, **more: Any) -> dict[str, Any]:
    """One task of `ReachBenchmark`, two episodes, by vla-eval's orchestrator."""
    entry = {"benchmark": "tests.unit.serving.reach_benchmark:ReachBenchmark", "episodes_per_task": 2, **more}
    (result,) = vla_eval.api.run({"benchmarks": [entry]}, server_url=url, output_dir=folder, no_save=True)
    return result


def test_vla_eval_judges_a_policy_of_ours(vla: str, mover: Mover, tmp_path: Path) -> None:
    result = judge(vla, tmp_path)

    (task,) = result["tasks"]
    assert [episode["metrics"]["success"] for episode in task["episodes"]] == [True, True]
    assert result["server_info"]["model_server"] == "Mover"
    steps = [step for *_, step in mover.seen]
    assert steps[:3] == [0, 3, 6]  # three actions of each chunk are executed
    assert steps.count(0) == 2  # each episode begins with a query
    images, _, instruction, _ = mover.seen[0]
    assert instruction == "reach"
    assert images.shape == (2, 16, 16, 3)
    assert images[:, 0, 0].tolist() == [[255, 0, 0], [0, 0, 255]]  # main view first


def test_the_command_of_the_docs_has_vla_eval_judge_our_server(vla: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "other_policies.md").read_text()
    block = next(text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "# eval.yaml" in text)
    command = re.search(r"vla-eval (run --config eval\.yaml --server-url) ws://", block)
    assert command is not None
    config = YAML(typ="safe").load(block)
    (entry,) = config["benchmarks"]
    entry.update(benchmark="tests.unit.serving.reach_benchmark:ReachBenchmark", episodes_per_task=1, params={})
    (tmp_path / "eval.yaml").write_text(json.dumps(config))  # JSON is YAML

    done = subprocess.run(
        [Path(sys.executable).with_name("vla-eval"), *command[1].split(), vla],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "100.0%" in done.stdout + done.stderr


def test_a_failing_policy_is_an_error_of_the_episode_in_vla_eval(vla: str, tmp_path: Path) -> None:
    result = judge(vla, tmp_path, params={"instruction": "break"})

    (task,) = result["tasks"]
    assert "ZeroDivisionError: in the model" in json.dumps(task["episodes"][0])


SERVE = """
import sys
from pokevla.serving.server import PolicyServer
from tests.unit.serving.test_server import Mover
PolicyServer(Mover(), "openpi").serve_forever(lambda url: print(url, flush=True))
print("closed", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_connections_and_ends_the_server(number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as server:
        assert server.stdout is not None
        with connect(server.stdout.readline().strip()) as client:
            client.recv(5)
            server.send_signal(number)
            with pytest.raises(ConnectionClosed):
                client.recv(20)
        assert server.stdout.read() == "closed\n"
        assert server.wait(20) == 0
