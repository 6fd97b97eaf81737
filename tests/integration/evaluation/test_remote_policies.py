"""Policies on servers of openpi and vla-eval, judged by our harness."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vla_eval.api import serve_background
from vla_eval.model_servers.predict import PredictModelServer

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import PolicyServerError
from pokevla.evaluation.closed_loop import ENVIRONMENT_SEED, run_closed_loop
from pokevla.evaluation.policies import build_policies
from pokevla.evaluation.running.places import Place
from pokevla.evaluation.running.pool import Limits, worker_pool
from pokevla.evaluation.running.serving import Serving, run_trials
from pokevla.evaluation.running.worker import BenchmarkFactory
from pokevla.evaluation.trial_records import TrialRecord, read_records
from pokevla.evaluation.trials import plan_trials
from pokevla.parts import EMBODIMENTS, ENVIRONMENTS, import_extensions
from pokevla.recipe.eval_sections.policies import PolicySpec, RemoteKeys
from pokevla.recipe.eval_sections.trials import TrialsConfig
from pokevla.recipe.schema import EvalRecipe
from pokevla.simulation.benchmark import EnvironmentSettings
from tests.policy_servers import openpi_server

PARTS = Path(__file__).parents[1] / "toy_parts"


class Steering:
    """Sees the red square and steers it to the middle of the picture. Fails from query `broken_from` on."""

    def __init__(self) -> None:
        self.queries = 0
        self.broken_from = 1 << 30

    def __call__(self, observation: dict[str, Any]) -> dict[str, Any]:
        self.queries += 1
        if self.queries >= self.broken_from:
            raise ValueError("CUDA out of memory")
        assert observation["prompt"] == "Follow the square"
        rows, columns = np.nonzero(observation["front"][..., 0] > 150)
        place = np.array([columns.min(), rows.min()]) / len(observation["front"])
        actions = np.zeros((8, 9), np.float32)
        actions[:, :2] = (0.5 - place) / 0.01 / 8
        return {"actions": actions}


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, ...]]:
    """The toy environment and its robot, registered for this test; yields the modules that register them."""
    monkeypatch.syspath_prepend(str(PARTS))  # spawned workers get our path
    modules = ("toy_embodiment", "toy_environment")
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import_extensions(modules)
    yield modules
    del ENVIRONMENTS["point"], EMBODIMENTS["two-arms"]
    for name in modules:
        del sys.modules[name]  # another test has a module of this name


def test_a_server_that_fails_ends_the_evaluation_with_its_name_and_finished_trials_are_kept(
    point: tuple[str, ...], tmp_path: Path
) -> None:
    steering, folder = Steering(), tmp_path / "judged"
    steering.broken_from = 3  # in the second trial

    with openpi_server(steering) as url:
        keys = RemoteKeys(images=("front", "left", "right"), proprio="state")
        recipe = EvalRecipe(
            kind="eval", name="judged", output=tmp_path, extensions=point, image_size=64, actions_per_query=6,
            trials=TrialsConfig(environment="point", suite="centre", tasks=[0], init_states=(0, 4)), videos=0,
            policies=[PolicySpec(name="far", kind="remote", url=url, protocol="openpi", keys=keys)], workers=1,
        )  # fmt: skip
        with pytest.raises(PolicyServerError) as caught:
            run_closed_loop(recipe)
        kept = read_records(folder / "episodes.jsonl")
        steering.broken_from, steering.queries = 1 << 30, 0
        summary = run_closed_loop(recipe)

    assert f"The server of policy far at {url} reported an error: ValueError: CUDA out of memory" in str(caught.value)
    assert [record.outcome for record in kept] == ["success"]
    records = read_records(folder / "episodes.jsonl")
    assert [record.outcome for record in records] == ["success"] * 4
    assert records[:1] == kept
    assert sum(record.queries for record in records[1:]) == steering.queries  # nothing was asked again
    assert summary["policies"]["far"]["successes"] == 4
    assert summary["settings"]["policies"] == {"far": "remote"}


class StillModel(PredictModelServer):
    """Stands still with an open gripper, and remembers what it saw."""

    def __init__(self) -> None:
        super().__init__(chunk_size=3)
        self.seen: list[dict[str, Any]] = []

    def predict(self, obs: dict[str, Any], ctx: Any) -> dict[str, Any]:
        self.seen.append(obs)
        return {"actions": np.tile(np.array([0, 0, 0, 0, 0, 0, -1], np.float32), (3, 1))}

    def get_observation_params(self) -> dict[str, Any]:
        return {"send_wrist_image": True, "send_state": True, "quat_no_antipodal": True, "env_seed": 0}


class StillPolicy:
    """The same in this process."""

    embodiment = LIBERO
    needs_images = True

    def __init__(self) -> None:
        self.seen: list[tuple[np.ndarray, np.ndarray, str]] = []

    def act(self, images: Any, proprio: Any, instructions: Any, steps: Any = None) -> np.ndarray:
        self.seen.append((images[0], proprio[0], instructions[0]))
        return np.tile([0, 0, 0, 0, 0, 0, -1.0], (1, 5, 1))


class Follower(PredictModelServer):
    """Moves towards the middle by the picture of the first observation of each chunk, as `Steering` does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(chunk_size=4, **options)

    def predict(self, obs: dict[str, Any], ctx: Any) -> dict[str, Any]:
        return Steering()({"prompt": obs["task_description"], "front": obs["images"]["front"]})

    def predict_batch(self, obs_batch: list[Any], ctx_batch: list[Any]) -> list[Any]:
        return [self.predict(obs, ctx) for obs, ctx in zip(obs_batch, ctx_batch, strict=True)]

    def get_observation_params(self) -> dict[str, Any]:
        return {"send_wrist_image": True}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_trials_on_several_workers_have_an_episode_each_on_a_vla_eval_server(
    point: tuple[str, ...], tmp_path: Path, batch_size: int
) -> None:
    steps: dict[int, list[int]] = {}
    for workers in (1, 2):
        with serve_background(Follower(max_batch_size=batch_size), host="127.0.0.1") as server:
            recipe = EvalRecipe(
                kind="eval", name=f"by-{workers}", output=tmp_path, extensions=point, image_size=64, videos=0,
                trials=TrialsConfig(environment="point", suite="centre", tasks=[0], init_states=(0, 4)),
                policies=[PolicySpec(name="far", kind="remote", url=server.url, protocol="vla-eval")],
                workers=workers, batch_size=batch_size,
            )  # fmt: skip
            run_closed_loop(recipe)
        records = sorted(read_records(tmp_path / recipe.name / "episodes.jsonl"), key=lambda record: record.key)
        assert {record.outcome for record in records} == {"success"}
        steps[workers] = [record.steps for record in records]

    assert steps[2] == steps[1]
    assert len(set(steps[1])) > 1


@pytest.mark.simulator
def test_servers_of_both_projects_see_what_our_own_policies_see_in_libero() -> None:
    model, ours = StillModel(), StillPolicy()
    seen, records = list[dict[str, Any]](), list[TrialRecord]()

    def infer(observation: dict[str, Any]) -> dict[str, Any]:
        seen.append(observation)
        return {"actions": np.tile([0, 0, 0, 0, 0, 0, -1.0], (5, 1))}

    with openpi_server(infer) as pi, serve_background(model, host="127.0.0.1") as groot:
        policies = [
            PolicySpec(name="pi", kind="remote", url=pi, protocol="openpi"),
            PolicySpec(name="groot", kind="remote", url=groot.url, protocol="vla-eval"),
        ]
        trials = TrialsConfig(suite="libero_object", tasks=[3], init_states=(1, 2), max_steps=5, settle_steps=2)
        recipe = EvalRecipe(kind="eval", name="trials", trials=trials, policies=policies, workers=1)
        judged = {**build_policies(recipe), ("ours", "libero_object"): ours}
        factory = BenchmarkFactory("libero", (), EnvironmentSettings(64, True, ENVIRONMENT_SEED))
        planned = plan_trials(trials, [name for name, _ in judged], {"libero_object": 5})
        with worker_pool([Place()], factory, Limits()) as pool:
            run_trials(planned, judged, pool, Serving(4), lambda _: None, records.append)

    assert {record.policy: (record.outcome, record.steps, record.queries) for record in records} == {
        "pi": ("failure", 5, 2),
        "groot": ("failure", 5, 5),  # asked at each step; its server divides chunks of three
        "ours": ("failure", 5, 2),
    }
    assert (len(seen), len(model.seen)) == (2, 2)
    images, proprio, instruction = ours.seen[0]
    np.testing.assert_array_equal([seen[0]["observation/image"], seen[0]["observation/wrist_image"]], images)
    np.testing.assert_array_equal(seen[0]["observation/state"], proprio)
    assert seen[0]["prompt"] == instruction
    assert list(model.seen[0]["images"]) == ["agentview", "wrist"]
    np.testing.assert_array_equal(list(model.seen[0]["images"].values()), images)
    np.testing.assert_array_equal(model.seen[0]["states"], proprio)
    assert model.seen[0]["task_description"] == instruction
