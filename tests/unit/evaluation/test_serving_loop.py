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
from pokevla.errors import SimulationError
from pokevla.evaluation.pool import Crash, Worker, WorkerPool, worker_pool
from pokevla.evaluation.serving_loop import act_padded, run_trials
from pokevla.evaluation.trials import plan_trials
from pokevla.evaluation.worker import Actions, Query, RunTrial
from pokevla.recipe.schema import TrialsConfig


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


def run(factory, workers: int, states: tuple[int, int], policies=None, tasks=(0,), shift=(0.0, 0.1)):
    policies = policies or {"stepper": Stepper()}
    config = TrialsConfig(suite="libero_object", tasks=list(tasks), init_states=states, target_shift_m=shift)
    records = []
    with worker_pool(workers, factory, 60.0) as pool:
        trials = plan_trials(config, list(policies), max_steps=20)
        run_trials(trials, policies, pool, 3, lambda trial: None, records.append)
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


def test_a_worker_that_hangs_is_killed_and_replaced(factory) -> None:
    config = TrialsConfig(suite="libero_object", tasks=[0], init_states=(15, 17))
    hanging, healthy = plan_trials(config, ["stepper"], max_steps=20)
    with worker_pool(1, factory, 60.0) as pool:
        pool.start_trial(0, RunTrial(hanging, images=False, masks=False))
        ((_, query),) = pool.reports([0])  # the process has started: now a short limit is safe
        pool.timeout_s = 0.5
        pool.send_actions(0, Actions(np.zeros((1, 7))))
        ((_, report),) = pool.reports([0])
        pool.timeout_s = 60.0
        pool.start_trial(0, RunTrial(healthy, images=False, masks=False))
        ((_, again),) = pool.reports([0])

    assert isinstance(query, Query)
    assert report == Crash("the environment process has not answered for 0.5 s (worker_timeout_s) and was killed")
    assert isinstance(again, Query)


def test_a_worker_that_hangs_in_the_middle_of_a_message_is_killed() -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    process.start()
    whole = pickle.dumps(b"x" * 1000)
    os.write(theirs.fileno(), len(whole).to_bytes(4, "big") + whole[:100])
    # The pipe closes when its process ends; here the test holds the other end.
    threading.Thread(target=lambda: (process.join(), theirs.close())).start()
    pool = WorkerPool(1, factory=None, timeout_s=0.5)
    pool.workers[0] = Worker(process, ours, running=object())
    ((slot, report),) = pool.reports([0])
    assert (slot, type(report)) == (0, Crash)
    assert "was killed" in report.reason


def test_an_error_of_ours_ends_the_evaluation_with_its_sentence(factory) -> None:
    with pytest.raises(SimulationError, match="no such task"):
        run(factory, 1, (0, 1), tasks=(99,))


def test_nothing_but_crashes_ends_the_evaluation(factory) -> None:
    policies = {name: Stepper() for name in ("one", "two", "three")}
    with pytest.raises(SimulationError, match="first 3 trials all crashed"):
        run(factory, 1, (13, 14), policies)


def test_batches_have_one_size_however_many_wait() -> None:
    policy = Stepper()
    query = Query(0, "reach", np.zeros(8, np.float32), None, None)
    assert act_padded(policy, [query], 3).shape == (1, 4, 7)
    assert policy.batches == [3]
