"""A policy on a model server of vla-eval's own package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from vla_eval.api import serve_background
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.specs import GRIPPER_CLOSE_NEG, DimSpec
from websockets.sync.server import ServerConnection

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import PolicyServerError, UsageError
from pokevla.policy.remote.connection import ServerAddress
from pokevla.policy.remote.vla_eval import VlaEvalPolicy
from pokevla.wire.vla_eval import Message, hello, pack_message, read_message
from tests.policy_servers import running

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 2, 8, 8, 3), dtype=np.uint8)
PROPRIO = np.arange(32, dtype=np.float32).reshape(4, 8)
LIMIT_S = 20.0


class CountingModel(PredictModelServer):
    """Predicts chunks of three: (position x of the proprio, number of the prediction, row in the chunk)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(chunk_size=3, **options)
        self.observations: list[dict[str, Any]] = []
        self.tasks: list[Any] = []

    async def on_episode_start(self, config: dict[str, Any], ctx: Any) -> None:
        self.tasks.append(config["task"]["name"])
        await super().on_episode_start(config, ctx)

    def predict(self, obs: dict[str, Any], ctx: Any) -> dict[str, Any]:
        self.observations.append(obs)
        if obs["task_description"] == "fail":
            raise ValueError("no such object")
        chunk = np.zeros((3, 7), np.float32)
        chunk[:, 0], chunk[:, 1], chunk[:, 2] = obs["states"][0], len(self.observations), range(3)
        return {"actions": chunk}

    def predict_batch(self, obs_batch: list[Any], ctx_batch: list[Any]) -> list[Any]:
        return [self.predict(obs, ctx) for obs, ctx in zip(obs_batch, ctx_batch, strict=True)]

    def get_observation_params(self) -> dict[str, Any]:
        return {"send_wrist_image": True, "send_state": True, "quat_no_antipodal": True}


@pytest.fixture
def model() -> CountingModel:
    return CountingModel()


@pytest.fixture
def policy(model: CountingModel) -> Iterator[VlaEvalPolicy]:
    with serve_background(model, host="127.0.0.1") as server:
        policy = connect(server.url)
        yield policy
        policy.close()


def connect(url: str) -> VlaEvalPolicy:
    return VlaEvalPolicy.connect(ServerAddress("groot", url, LIMIT_S), LIBERO)


def act(policy: VlaEvalPolicy, rows: list[int], step: int, trials: list[Any] | None = None, text: str = "go") -> Any:
    return policy.act(IMAGES[rows], PROPRIO[rows], [text] * len(rows), [step] * len(rows), trials)


def test_the_server_divides_its_chunks_and_a_new_trial_starts_with_a_new_one(
    policy: VlaEvalPolicy, model: CountingModel
) -> None:
    first = [act(policy, [1], step)[0, 0, :3].tolist() for step in range(4)]
    second = [act(policy, [2], step)[0, 0, :3].tolist() for step in range(2)]

    assert first == [[8, 1, 0], [8, 1, 1], [8, 1, 2], [8, 2, 0]]
    assert second == [[16, 3, 0], [16, 3, 1]]  # not the rest of the second chunk
    assert model.tasks == ["go", "go"]
    assert act(policy, [2], 2).shape == (1, 1, 7)
    np.testing.assert_array_equal(model.observations[0]["images"]["wrist"], IMAGES[1, 1])
    np.testing.assert_array_equal(model.observations[0]["states"], PROPRIO[1])


def test_trials_that_run_at_once_keep_their_own_episodes(policy: VlaEvalPolicy, model: CountingModel) -> None:
    begun = act(policy, [0, 1, 1], 0, ["a", "b", "b"])  # the last row fills the batch
    later = act(policy, [1, 1, 1], 1, ["b", "b", "b"])
    other = policy.act(IMAGES[[2, 0, 0]], PROPRIO[[2, 0, 0]], ["go"] * 3, [0, 1, 1], ["c", "a", "a"])

    assert begun[:, 0, 0].tolist() == [0, 8, 8]
    assert begun[:, 0, 2].tolist() == [0, 0, 0]
    assert later[:, 0, [0, 2]].tolist() == [[8, 1]] * 3
    assert other[:, 0, [0, 2]].tolist() == [[16, 0], [0, 1], [0, 1]]
    assert len(model.observations) == 3


@pytest.mark.parametrize("at_once", [1, 2])
def test_the_connection_of_an_ended_trial_is_used_again(model: CountingModel, at_once: int) -> None:
    with serve_background(model, host="127.0.0.1") as server:
        policy = connect(server.url)
        connections = set[int]()
        for first in range(0, 6, at_once):  # trials that take turns, as with several workers
            for step in range(4):
                for trial in range(first, first + at_once):
                    chunk = act(policy, [trial % 4], step, [trial])[0, 0]
                    assert chunk[[0, 2]].tolist() == [8 * (trial % 4), step % 3]
            connections |= set(map(id, policy._sessions.values()))
            for trial in range(first, first + at_once):
                policy.end_trial(trial)
        assert len(connections) == at_once
        policy.close()

    assert len(model.tasks) == 6


def test_a_slow_trial_keeps_its_connection_while_others_begin_and_end(policy: VlaEvalPolicy) -> None:
    assert act(policy, [1], 0, ["slow"])[0, 0, [0, 2]].tolist() == [8, 0]
    for name in "abc":
        for step in range(3):
            act(policy, [2], step, [name])
        policy.end_trial(name)
    assert act(policy, [1], 1, ["slow"])[0, 0, [0, 2]].tolist() == [8, 1]


def test_a_trial_repeated_after_a_crash_begins_again(policy: VlaEvalPolicy, model: CountingModel) -> None:
    act(policy, [0], 0)
    act(policy, [0], 1)

    assert act(policy, [0], 0)[0, 0, 2] == 0
    assert model.tasks == ["go", "go"]


def test_observations_of_all_trials_reach_the_server_together() -> None:
    model = CountingModel(max_batch_size=4, max_wait_time=1.0)
    sizes: list[int] = []
    whole = model.predict_batch

    def noted(obs_batch: list[Any], ctx_batch: list[Any]) -> list[Any]:
        sizes.append(len(obs_batch))
        return whole(obs_batch, ctx_batch)

    model.predict_batch = noted  # type: ignore[method-assign]
    with serve_background(model, host="127.0.0.1") as server:
        policy = connect(server.url)
        chunks = act(policy, [0, 1, 2, 3], 0, list("abcd"))
        policy.close()

    assert sorted(chunks[:, 0, 0]) == [0, 8, 16, 24]
    assert sum(sizes) == 4
    assert len(sizes) < 4


def test_several_trials_without_names_are_refused(policy: VlaEvalPolicy) -> None:
    with pytest.raises(UsageError, match=r"2 trials run at once\. Set workers=1\."):
        act(policy, [0, 1], 0)


@pytest.mark.parametrize("steps", [(0, 0, 1, 1), (0, 1, 1), (0, 2), (3,)])
def test_trials_that_take_turns_in_one_episode_are_refused(policy: VlaEvalPolicy, steps: tuple[int, ...]) -> None:
    for step in steps[:-1]:
        act(policy, [0], step)

    with pytest.raises(UsageError, match=r"several trials share an episode of the server\. Set workers=1\."):
        act(policy, [0], steps[-1])


def test_an_error_of_the_model_is_passed_on(policy: VlaEvalPolicy) -> None:
    with pytest.raises(PolicyServerError, match=r"policy groot .* observation_failed: ValueError: no such object"):
        act(policy, [0], 0, text="fail")


def test_a_server_with_another_gripper_is_refused() -> None:
    class Inverted(CountingModel):
        def get_action_spec(self) -> dict[str, DimSpec]:
            return {"gripper": GRIPPER_CLOSE_NEG}

        def get_observation_spec(self) -> dict[str, DimSpec]:
            return {}

    with serve_background(Inverted(), host="127.0.0.1") as server, pytest.raises(PolicyServerError) as caught:
        connect(server.url)

    assert "gripper 'binary_close_negative'; LIBERO takes 'binary_close_positive'" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\xc1", "not a message of vla-eval"),
        (pack_message(Message("hello", hello("x"), 3)), "message 3 (hello) where 3 (action) is due"),
        (pack_message(Message("action", {"actions": np.zeros(7)}, 2)), "message 2 (action) where 3 (action) is due"),
        (pack_message(Message("action", {"actions": np.zeros(5)}, 3)), "libero takes (K, 7)"),
        (pack_message(Message("action", {}, 3)), "no 'action'; it has nothing"),
    ],
    ids=["garbage", "hello", "late", "narrow", "empty"],
)
def test_a_server_that_misbehaves_ends_the_query_with_its_name(answer: bytes, reason: str) -> None:
    def handler(connection: ServerConnection) -> None:
        said = connection.recv()
        assert isinstance(said, bytes)
        connection.send(pack_message(Message("hello", hello("x"), read_message(said).seq)))
        connection.recv()  # the episode begins
        connection.recv()
        connection.send(answer)
        connection.recv()

    with running(handler) as url:
        policy = connect(url)
        with pytest.raises(PolicyServerError) as caught:
            act(policy, [0], 0)
        policy.close()

    assert f"The server of policy groot at {url} sent what cannot be used" in str(caught.value)
    assert reason in str(caught.value)


def test_a_server_of_openpi_is_not_taken_for_one_of_vla_eval() -> None:
    def handler(connection: ServerConnection) -> None:
        connection.send(b"\x80")  # an empty map of metadata
        connection.recv()
        connection.recv()

    with running(handler) as url, pytest.raises(PolicyServerError, match="the message has no 'type'"):
        connect(url)
