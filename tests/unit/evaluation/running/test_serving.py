import importlib
import multiprocessing
import os
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import EnvironmentSetupError, PolicyError, SimulationError, UsageError
from pokevla.evaluation.running.answers import ask
from pokevla.evaluation.running.messages import Actions, Query, RunTrial
from pokevla.evaluation.running.places import Place
from pokevla.evaluation.running.pool import Crash, Limits, Worker, WorkerPool, worker_pool
from pokevla.evaluation.running.serving import Serving, run_trials
from pokevla.evaluation.running.watching import Ending, Watched
from pokevla.evaluation.trial_records import TrialRecord
from pokevla.evaluation.trials import Trial, plan_trials
from pokevla.recipe.eval_sections.trials import TrialsConfig

SUITE = "libero_object"
QUERY = Query(0, "reach", np.zeros(8, np.float32), None, None)


class Stepper:
    """Moves by a tenth of what is left to go, in chunks of 4."""

    embodiment = LIBERO

    def __init__(self, needs_images: bool = False) -> None:
        self.needs_images = needs_images
        self.batches: list[int] = []

    def act(self, images, proprio, instructions, steps=None):
        self.batches.append(len(proprio))
        assert (images is not None) == self.needs_images
        actions = np.zeros((len(proprio), 4, 7))
        actions[:, :, 0] = 0.02 + 0.1 * (1 - proprio[:, :1])
        return actions


@pytest.fixture
def factory(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # spawned workers get our path
    return importlib.import_module("toy_environment").ToyEnvironment


def run(
    factory, workers: int, states: tuple[int, int], policies=None, tasks=(0,), shift=(0.0, 0.1), places=None,
    limits=Limits(60.0, 60.0), finished=0, watch=lambda trial: None, **serving,
):  # fmt: skip
    policies = policies or {"stepper": Stepper()}
    config = TrialsConfig(suite=SUITE, tasks=list(tasks), init_states=states, target_shift_m=shift)
    records = []
    with worker_pool(places or [Place()] * workers, factory, limits) as pool:
        trials = plan_trials(config, list(policies), {SUITE: 20})
        by_suite = {(name, SUITE): policy for name, policy in policies.items()}
        run_trials(trials, by_suite, pool, Serving(3, **serving), watch, records.append, finished=finished)
    return sorted(records, key=lambda record: (record.task_index, record.policy, record.init_state_index))


def content(records):
    return [(r.key, r.target_shift, r.outcome, r.steps, r.queries) for r in records]


def test_batched_trials_equal_serial_ones(factory) -> None:
    assert content(run(factory, 2, (0, 6))) == content(run(factory, 1, (0, 6)))


def test_every_policy_meets_the_same_placements(factory) -> None:
    records = run(factory, 2, (0, 3), {"one": Stepper(), "two": Stepper(needs_images=True)})
    shifts = {name: [r.target_shift for r in records if r.policy == name] for name in ("one", "two")}
    assert shifts["one"] == shifts["two"]
    assert len(set(shifts["one"])) == 3


def test_a_killed_worker_is_a_crashed_trial_and_the_rest_goes_on(factory) -> None:
    records = run(factory, 2, (11, 15))
    outcomes = {record.init_state_index: record.outcome for record in records}
    assert outcomes.pop(13) == "crashed"
    assert outcomes.pop(14) == "crashed"
    assert set(outcomes.values()) == {"success"}
    errors = {record.init_state_index: record.error for record in records}
    assert "-9" in errors[13]
    assert "ZeroDivisionError: physics" in errors[14]


def test_a_trial_that_crashed_once_is_tried_again_in_a_fresh_process(factory, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("POKEVLA_TOY_MARKER", str(tmp_path / "died"))
    flaky, healthy = run(factory, 1, (16, 18))
    assert (flaky.outcome, flaky.attempts) == ("success", 2)
    assert (healthy.outcome, healthy.attempts) == ("success", 1)
    assert content([flaky, healthy])[1:] == content(run(factory, 1, (17, 18)))


class Keeper(Stepper):
    """Keeps a set of the trials that run."""

    def __init__(self) -> None:
        super().__init__()
        self.running: set[object] = set()
        self.most = self.ended = 0

    def end_trial(self, trial) -> None:
        self.running.discard(trial)
        self.ended += 1

    def act(self, images, proprio, instructions, steps=None, trials=None):
        for trial, step in zip(trials, steps, strict=True):
            assert (trial in self.running) or step == 0, "an ended trial is asked for"
        self.running |= set(trials)
        self.most = max(self.most, len(self.running))
        return super().act(images, proprio, instructions, steps)


def test_a_policy_is_told_of_each_trial_that_ends_and_of_each_that_crashes(factory) -> None:
    keeper = Keeper()
    records = run(factory, 2, (8, 15), {"keeper": keeper})  # 13 and 14 crash
    assert {record.outcome for record in records} == {"success", "crashed"}
    assert keeper.ended == sum(record.attempts for record in records)
    assert (keeper.running, keeper.most) == (set(), 2)


class Onlooker:
    """Notes what it is shown of an attempt."""

    wants_masks = False

    def __init__(self) -> None:
        self.shown: list[tuple[int, tuple[int, ...] | None]] = []
        self.ending: Ending | None = None

    def see(self, query: Query, chunk: np.ndarray | None) -> None:
        self.shown.append((query.step, None if chunk is None else chunk.shape))

    def finish(self, ending: Ending) -> Watched:
        self.ending = ending
        return {"video": f"{ending.outcome}.mp4"}


def watched(factory, state: int, policies=None, **serving) -> tuple[list[Onlooker], TrialRecord]:
    """The onlookers of all attempts at a trial, and its record."""
    onlookers: list[Onlooker] = []

    def watch(trial: Trial) -> Onlooker:
        onlookers.append(Onlooker())
        return onlookers[-1]

    (record,) = run(factory, 1, (state, state + 1), policies, watch=watch, **serving)
    return onlookers, record


def test_a_watcher_sees_whole_chunks_the_last_observation_and_the_outcome(factory) -> None:
    ((onlooker,), record) = watched(factory, 23)
    assert onlooker.shown == [(0, (4, 7)), (3, (4, 7)), (4, None)], "three of four actions are executed"
    assert (onlooker.ending, record.video) == (Ending("success", 4), "success.mp4")


def test_a_trial_that_crashes_has_an_outcome_for_its_watcher_too(factory) -> None:
    ((onlooker,), record) = watched(factory, 13, retries=0)
    assert onlooker.shown == [(0, (4, 7))]
    assert (onlooker.ending, record.outcome, record.video) == (Ending("crashed", 0), "crashed", "crashed.mp4")


def test_an_attempt_that_is_repeated_has_no_outcome(factory, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("POKEVLA_TOY_MARKER", str(tmp_path / "died"))
    (first, second), record = watched(factory, 16)
    assert first.ending is None
    assert second.ending == Ending("success", record.steps)
    assert record.attempts == 2


def test_success_at_any_step_counts_and_ends_the_trial(factory) -> None:
    (record,) = run(factory, 1, (23, 24))
    assert (record.outcome, record.steps, record.queries) == ("success", 4, 2)


def test_a_crash_that_repeats_itself_is_recorded_with_its_attempts(factory) -> None:
    crashed, _ = run(factory, 1, (13, 15), tasks=(0,), retries=1)
    assert (crashed.outcome, crashed.attempts) == ("crashed", 2)


def test_an_error_of_the_simulator_ends_one_trial(factory) -> None:
    records = run(factory, 1, (18, 21), retries=0)
    assert [record.outcome for record in records] == ["success", "crashed", "success"]
    assert records[1].error == "the arm does not reach it."


def test_a_worker_that_hangs_is_killed_and_replaced(factory) -> None:
    config = TrialsConfig(suite=SUITE, tasks=[0], init_states=(15, 17))
    hanging, healthy = plan_trials(config, ["stepper"], {SUITE: 20})
    with worker_pool([Place()], factory, Limits(60.0, 0.5)) as pool:
        pool.start_trial(0, RunTrial(hanging, images=False, masks=False))
        ((_, query),) = pool.reports([0])
        pool.send_actions(0, Actions(np.zeros((1, 7))))
        ((_, report),) = pool.reports([0])
        pool.start_trial(0, RunTrial(healthy, images=False, masks=False))
        ((_, again),) = pool.reports([0])

    assert isinstance(query, Query)
    assert report == Crash("the environment process has not answered for 0.5 s (step_timeout_s) and was killed")
    assert isinstance(again, Query)


def test_a_reset_that_hangs_is_killed(factory) -> None:
    records = run(factory, 1, (21, 23), limits=Limits(6.0, 60.0), retries=0)
    assert [record.outcome for record in records] == ["crashed", "success"]
    assert "(worker_timeout_s) and was killed" in records[0].error


def test_a_process_is_replaced_after_so_many_trials(factory) -> None:
    many = run(factory, 1, (0, 4), limits=Limits(60.0, 60.0, trials_per_process=2))
    assert [record.gl for record in many] == ["toy, trial 1", "toy, trial 2"] * 2
    assert content(many) == content(run(factory, 1, (0, 4)))


def test_rendering_that_fails_on_one_gpu_goes_on_on_the_others(factory, caplog) -> None:
    places = [Place(gpu, {"MUJOCO_EGL_DEVICE_ID": gpu}) for gpu in ("broken", "1")]
    records = run(factory, 2, (0, 4), places=places, retries=0)
    assert {record.outcome for record in records} == {"success"}
    assert "rendering cannot start on GPU broken" in caplog.text
    with pytest.raises(EnvironmentSetupError, match="no EGL here"):
        run(factory, 1, (0, 2), places=[places[0]])


def test_a_worker_that_hangs_in_the_middle_of_a_message_is_killed() -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    whole = pickle.dumps(b"x" * 1000)
    os.write(theirs.fileno(), len(whole).to_bytes(4, "big") + whole[:100])
    # The pipe closes when its process ends; here the test holds the other end.
    threading.Thread(target=lambda: (process.join(), theirs.close())).start()
    pool = WorkerPool([Place()], factory=None, limits=Limits())
    pool.workers[0] = Worker(process, ours, Place(), running=object(), limit_s=0.5)
    ((slot, report),) = pool.reports([0])
    assert (slot, type(report)) == (0, Crash)
    assert "was killed" in report.reason


def test_an_error_of_ours_ends_the_evaluation_with_its_sentence(factory) -> None:
    with pytest.raises(UsageError, match="no such task"):
        run(factory, 1, (0, 1), tasks=(99,))


def test_nothing_but_crashes_ends_the_evaluation(factory) -> None:
    policies = {name: Stepper() for name in ("one", "two", "three")}
    with pytest.raises(SimulationError, match="first 3 trials all crashed"):
        run(factory, 1, (13, 14), policies, retries=0)


def test_crashes_do_not_end_an_evaluation_in_which_others_have_finished(factory) -> None:
    policies = {name: Stepper() for name in ("one", "two", "three", "four")}
    records = run(factory, 1, (13, 14), policies, retries=0, finished=1)
    assert [record.outcome for record in records] == ["crashed"] * 4


@pytest.mark.parametrize(("waiting", "size"), [(1, 3), (3, 3), (4, 3), (2, 1)])
def test_batches_have_one_size_however_many_wait(waiting: int, size: int) -> None:
    policy = Stepper()
    assert ask("stepper", policy, [QUERY] * waiting, size).shape == (waiting, 4, 7)
    assert set(policy.batches) == {size}


class Broken(Stepper):
    def __init__(self, actions) -> None:
        super().__init__()
        self.actions = actions

    def act(self, images, proprio, instructions, steps=None):
        return self.actions


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (np.full((1, 4, 7), np.nan), r"Policy broken returned nan as action 0, value 0"),
        (np.zeros((1, 4, 6)), r"Policy broken returned actions of shape \(1, 4, 6\); \(1, actions, 7\) is needed"),
        (np.zeros((2, 4, 7)), r"of shape \(2, 4, 7\)"),
        (np.zeros((1, 0, 7)), r"of shape \(1, 0, 7\)"),
        (np.zeros((1, 7)), r"of shape \(1, 7\)"),
        (np.full((1, 4, 7), "up"), r"of type <U2"),
    ],
)
def test_actions_that_no_robot_can_execute_end_the_evaluation_with_the_policys_name(actions, words) -> None:
    with pytest.raises(PolicyError, match=words):
        ask("broken", Broken(actions), [QUERY], 1)
