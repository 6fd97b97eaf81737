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
from pokevla.evaluation.drawing.frames import BAR_HEIGHT, LINE, NOTE_HEIGHT, SIDE
from pokevla.evaluation.drawing.lettering import OUTCOME_COLOURS
from pokevla.evaluation.drawing.recorder import Filming, TrialRecorder
from pokevla.evaluation.drawing.videos import read_video
from pokevla.evaluation.running.places import Place
from pokevla.evaluation.running.pool import Limits, worker_pool
from pokevla.evaluation.running.serving import Serving, run_trials
from pokevla.evaluation.running.worker import BenchmarkFactory
from pokevla.evaluation.selection import ENVIRONMENT_SEED
from pokevla.evaluation.trial_records import TrialRecord, read_records, rewrite_records
from pokevla.evaluation.trials import placement_rng, plan_trials
from pokevla.policy.replay import ReplayPolicy
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
    records: list[TrialRecord] = []
    with worker_pool([Place()], FACTORY, Limits()) as pool:
        policy.pool = pool
        filming = Filming(LIBERO, 8)
        watch = lambda trial: TrialRecorder(tmp_path, trial, filming) if trial.init_state_index else None  # noqa: E731
        serving = Serving(8, retries=0)
        run_trials([*trials, *again], {("idle", SUITE): policy}, pool, serving, watch, records.append)
    assert [record.outcome for record in records] == ["failure", "crashed", "failure", "failure"]
    first, last = policy.seen[0:2], policy.seen[-2:]
    for before, after in zip(first, last, strict=True):  # another process, after another trial: the same pixels
        np.testing.assert_array_equal(before, after)
    for record, seen in ((records[1], 2), (records[2], 3)):
        frames, _ = read_video(tmp_path / str(record.video))
        assert len(frames) == seen + (4 if record.outcome == "crashed" else 3), "the outcome stays for 1.5 s"
        assert is_coloured(frames[-1][-BAR_HEIGHT:], OUTCOME_COLOURS[record.outcome])


def is_coloured(part: np.ndarray, colour: tuple[int, int, int]) -> bool:
    """Whether most of a part of a frame has a colour, as exactly as video has it."""
    return bool((np.abs(part.astype(int) - colour).max(axis=-1) < 24).mean() > 0.5)


class Seeing(ReplayPolicy):
    """A replay that looks, and remembers what it saw."""

    needs_images = True

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.seen: list[np.ndarray] = []

    def act(self, images, proprio, instructions, steps=None):
        self.seen.append(images[0])
        return super().act(images, proprio, instructions, steps)


def test_videos_show_what_the_policy_saw_where_the_goal_was_and_what_came_out(tmp_path, expert_dataset) -> None:
    actions = ReplayPolicy.from_dataset(expert_dataset, 0, 8).actions
    policies = {"solver": Seeing(actions, LIBERO, 8), "still": Seeing(np.zeros((1, 7)), LIBERO, 8)}
    trials = plan_trials(trials_config(), list(policies), {SUITE: 280})
    trials = [trial if trial.policy == "solver" else replace(trial, max_steps=16) for trial in trials]
    records: list[TrialRecord] = []
    with worker_pool([Place()], FACTORY, Limits()) as pool:
        run_trials(
            trials, {(name, SUITE): policy for name, policy in policies.items()}, pool, Serving(8),
            lambda trial: TrialRecorder(tmp_path, trial, Filming(LIBERO, 8)), records.append,
        )  # fmt: skip
    films = {record.policy: read_video(tmp_path / str(record.video))[0] for record in records}
    assert {record.policy: record.outcome for record in records} == {"solver": "success", "still": "failure"}
    assert films["solver"][0].shape == films["still"][0].shape
    height, width, _ = films["solver"][0].shape
    assert (width, height % 2) == (2 * SIDE + 4, 0)

    top = 6 + LINE + NOTE_HEIGHT  # an instruction of one line, and policy and trial below it
    for name, policy in policies.items():
        assert len(films[name]) == len(policy.seen) + 4
        for frame, seen in zip(films[name], policy.seen, strict=False):
            for view in range(2):
                left = view * (SIDE + 4)
                shown = frame[top : top + SIDE, left : left + SIDE].reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
                assert np.abs(shown - seen[view]).mean() < 12
    first = films["solver"][0][top : top + SIDE].astype(int)
    assert ((first[..., 1] - first[..., [0, 2]].max(axis=-1)) > 60).sum() > 100, "the true mask is outlined in green"

    bars = {name: film[-1][-BAR_HEIGHT:] for name, film in films.items()}
    assert is_coloured(bars["solver"], OUTCOME_COLOURS["success"])
    assert is_coloured(bars["still"], OUTCOME_COLOURS["failure"])
    plots = [film[1][top + SIDE : -BAR_HEIGHT] for film in films.values()]
    assert np.abs(plots[0].astype(int) - plots[1]).max() > 100, "other actions"
    for record in records:
        assert (tmp_path / "pictures" / f"{Path(str(record.video)).stem}.png").stat().st_size > 20_000
