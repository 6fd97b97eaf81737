"""Workers whose environment becomes one task after another get the same trials as new environments."""

from __future__ import annotations

import numpy as np
import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.evaluation.running.places import Place
from pokevla.evaluation.running.pool import Limits, worker_pool
from pokevla.evaluation.running.serving import Serving, run_trials
from pokevla.evaluation.trial_records import TrialRecord
from pokevla.evaluation.trials import Trial
from pokevla.simulation.benchmark import Environment, EnvironmentSettings
from pokevla.simulation.libero_plus.benchmark import make_libero_plus
from tests.libero_plus import CAMERA, LANGUAGE, MOVED, NOISE, ROBOT, sample_source

pytestmark = pytest.mark.simulator
SUITE, SIZE, CHUNK, STEPS, SETTLE = "libero_object", 64, 4, 8, 2
ACTIONS = np.random.default_rng(0).uniform(-0.5, 0.5, (STEPS, 7))
Seen = list[tuple[str, bytes, bytes]]


class SampleFactory:
    """Environments of the sample checkout, in a process that does not know it yet."""

    def __call__(self, suite: str, task_index: int) -> Environment:
        source = sample_source(pytest.MonkeyPatch())  # for the rest of the worker's life
        return make_libero_plus(suite, task_index, EnvironmentSettings(SIZE, True, 0, source=source))


class Recorded:
    """A policy that does the same in every trial and notes what it sees: instruction, images, proprio."""

    embodiment, needs_images = LIBERO, True

    def __init__(self) -> None:
        self.seen: Seen = []

    def act(self, images, proprio, instructions, steps=None) -> np.ndarray:
        self.seen.append((instructions[0], images.tobytes(), proprio.tobytes()))
        return ACTIONS[None, steps[0] : steps[0] + CHUNK]


def trial(task: int, number: int) -> Trial:
    return Trial("recorded", SUITE, task, 0, number, 7, None, STEPS, SETTLE)


def seen_by_a_new_environment(monkeypatch: pytest.MonkeyPatch, task: int) -> Seen:
    settings = EnvironmentSettings(SIZE, True, 0, source=sample_source(monkeypatch))
    environment = make_libero_plus(SUITE, task, settings)
    environment.reset(0, settle_steps=SETTLE)
    seen = []
    for step, action in enumerate(ACTIONS):
        if step % CHUNK == 0:
            observed = environment.observe()
            assert observed.images is not None
            seen.append((environment.task.instruction, observed.images.tobytes(), observed.proprio.tobytes()))
        environment.step(action)
    environment.close()
    return seen


def test_plus_tasks_in_one_worker_equal_those_in_new_environments_in_any_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = {task: seen_by_a_new_environment(monkeypatch, task) for task in (CAMERA, LANGUAGE, NOISE, ROBOT, MOVED)}
    assert len({str(seen) for seen in expected.values()}) == len(expected)
    records: list[TrialRecord] = []
    with worker_pool([Place()], SampleFactory(), Limits()) as pool:
        for number, task in enumerate([NOISE, LANGUAGE, CAMERA, MOVED, NOISE, ROBOT, LANGUAGE]):
            policy = Recorded()
            run_trials(
                [trial(task, number)], {("recorded", SUITE): policy}, pool, Serving(CHUNK, retries=0),
                lambda _: None, records.append,
            )  # fmt: skip
            assert policy.seen == expected[task], task
    assert [record.outcome for record in records] == ["failure"] * 7
    assert len({record.task for record in records}) == 5
