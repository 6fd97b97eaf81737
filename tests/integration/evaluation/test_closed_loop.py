"""Trials in the real simulator: replay of an expert, crashes, continuing, and the files an evaluation leaves."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import UsageError
from pokevla.evaluation.closed_loop import run_closed_loop
from pokevla.evaluation.running.places import Place
from pokevla.evaluation.running.pool import Limits, worker_pool
from pokevla.evaluation.running.serving import Serving, run_trials
from pokevla.evaluation.running.worker import BenchmarkFactory
from pokevla.evaluation.selection import ENVIRONMENT_SEED
from pokevla.evaluation.trial_records import TrialRecord, read_records, rewrite_records
from pokevla.evaluation.trials import placement_rng, plan_trials
from pokevla.evaluation.videos import TrialRecorder
from pokevla.recipe.eval_sections.policies import PolicySpec
from pokevla.recipe.eval_sections.trials import TrialsConfig
from pokevla.recipe.schema import EvalRecipe
from pokevla.simulation.benchmark import EnvironmentSettings
from pokevla.simulation.environment import LiberoEnvironment
from pokevla.simulation.expert.scripted import ScriptedExpert
from tests.toys import write_dataset_info

pytestmark = pytest.mark.simulator
SUITE, TASK, STATE = "libero_object", 3, 0
SHIFT = (0.02, 0.04)
FACTORY = BenchmarkFactory("libero", (), EnvironmentSettings(64, True, ENVIRONMENT_SEED))


def trials_config(**changes) -> TrialsConfig:
    values = {"suite": SUITE, "tasks": [TASK], "init_states": (STATE, STATE + 1), "target_shift_m": SHIFT, "seed": 7}
    return TrialsConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def expert_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`episodes.parquet` of one expert episode in the very state and placement of the first trial."""
    folder = tmp_path_factory.mktemp("dataset")
    trial = plan_trials(trials_config(), ["replay"], {SUITE: 280})[0]
    environment = LiberoEnvironment(SUITE, TASK, image_size=64, fast_rendering=True, seed=ENVIRONMENT_SEED)
    shift = environment.sample_target_shift(STATE, placement_rng(trial), *SHIFT)
    environment.reset(STATE, target_shift=shift)
    expert = ScriptedExpert(environment)
    actions = []
    for _ in range(trial.max_steps):
        actions.append(np.asarray(expert.act(), dtype=np.float64))
        if environment.step(actions[-1]):
            break
    else:
        pytest.fail("the expert did not succeed")
    environment.close()
    table = pa.table({"episode": [0], "executed_actions": [[action.tolist() for action in actions]]})
    parquet.write_table(table, folder / "episodes.parquet")
    write_dataset_info(folder)
    return folder


def eval_recipe(tmp_path: Path, dataset: Path, **changes) -> EvalRecipe:
    values = {
        "kind": "eval", "name": "trials", "output": tmp_path, "trials": trials_config(**changes.pop("trials", {})),
        "policies": [PolicySpec(name="replay", kind="replay", dataset=dataset)], "image_size": 64,
        "fast_rendering": True, "workers": 1,
    }  # fmt: skip
    return EvalRecipe(**{**values, **changes})


def test_replay_succeeds_where_the_expert_did_and_an_evaluation_is_not_run_twice(tmp_path, expert_dataset) -> None:
    recipe = eval_recipe(tmp_path, expert_dataset)
    summary = run_closed_loop(recipe)
    assert summary["policies"]["replay"]["successes"] == 1
    assert json.loads((tmp_path / "trials" / "summary.json").read_text()) == summary
    assert summary["settings"]["fast_rendering"] is True
    with pytest.raises(UsageError, match="is complete"):
        run_closed_loop(recipe)
    (tmp_path / "trials" / "summary.json").unlink()
    episodes = tmp_path / "trials" / "episodes.jsonl"
    records = read_records(episodes)
    assert run_closed_loop(recipe) == summary  # continued: nothing was left to run
    assert read_records(episodes) == records


def test_crashed_trials_are_repeated_when_the_evaluation_is_continued(tmp_path, expert_dataset) -> None:
    recipe = eval_recipe(tmp_path, expert_dataset, trials={"init_states": (STATE, STATE + 2), "max_steps": 16})
    first = run_closed_loop(recipe)
    folder = tmp_path / "trials"
    episodes = folder / "episodes.jsonl"
    whole = read_records(episodes)
    crashed = [replace(whole[0], outcome="crashed", steps=0, error="killed"), whole[1]]
    rewrite_records(episodes, crashed)  # as a trial leaves it whose simulator died
    seen: list[TrialRecord] = []

    again = run_closed_loop(recipe, on_progress=lambda record, done, total: seen.append(record))

    assert [record.init_state_index for record in seen] == [STATE], "only the crashed one"
    records = {record.key: record for record in read_records(episodes)}
    assert len(records) == len(read_records(episodes)) == 2, "the old record is replaced"
    assert records[whole[0].key].outcome == "failure"
    assert again["policies"]["replay"]["trials"] == first["policies"]["replay"]["trials"] == 2
    with pytest.raises(UsageError, match="is complete"):
        run_closed_loop(recipe)


class Killer:
    """Idle policy that kills the environment's process at its second query of state 1."""

    needs_images = True
    embodiment = LIBERO

    def __init__(self) -> None:
        self.pool = None
        self.seen: list[np.ndarray] = []

    def act(self, images, proprio, instructions, steps=None):
        self.seen.append(images)
        if steps[0] == 8 and len(self.seen) == 4:
            os.kill(self.pool.workers[0].process.pid, 9)
        actions = np.zeros((len(proprio), 8, 7))
        actions[..., 6] = -1
        return actions


def test_a_dead_simulator_is_a_crash_and_trials_are_pure_functions_of_their_place(tmp_path) -> None:
    policy = Killer()
    trials = plan_trials(trials_config(init_states=(0, 3)), ["idle"], {SUITE: 16})
    again = plan_trials(trials_config(init_states=(0, 1)), ["idle"], {SUITE: 16})
    recorder = TrialRecorder(tmp_path, "idle", None, 2.5)
    records: list[TrialRecord] = []
    with worker_pool([Place()], FACTORY, Limits()) as pool:
        policy.pool = pool
        watch = lambda trial: recorder if trial.init_state_index == 2 else None  # noqa: E731
        serving = Serving(8, retries=0)
        run_trials([*trials, *again], {("idle", SUITE): policy}, pool, serving, watch, records.append)
    assert [record.outcome for record in records] == ["failure", "crashed", "failure", "failure"]
    first, last = policy.seen[0:2], policy.seen[-2:]
    for before, after in zip(first, last, strict=True):  # another process, after another trial: the same pixels
        np.testing.assert_array_equal(before, after)
    assert (tmp_path / str(records[2].video)).stat().st_size > 500
