"""LIBERO-Plus as a benchmark: four suites of 2,402 to 2,591 tasks, one trial each."""

from __future__ import annotations

from functools import partial

from pokevla.simulation.benchmark import Benchmark, Environment, EnvironmentSettings, TaskSource
from pokevla.simulation.libero_plus.availability import unavailable_tasks
from pokevla.simulation.libero_plus.checkout import NUM_TASKS
from pokevla.simulation.libero_plus.names import CATEGORIES
from pokevla.simulation.libero_plus.tasks import kinship, plus_task
from pokevla.simulation.suites import MAX_STEPS


def make_libero_plus(suite: str, task_index: int, settings: EnvironmentSettings) -> Environment:
    """Create the environment of one task. Imports MuJoCo."""
    from pokevla.simulation.libero_plus.environment import PlusEnvironment

    return PlusEnvironment(suite, task_index, settings)


def libero_plus(source: TaskSource) -> Benchmark:
    """The benchmark with the tasks of a checkout, which is opened when the first task is asked for."""
    return Benchmark(
        suites=tuple(NUM_TASKS),
        num_tasks=NUM_TASKS.__getitem__,
        max_steps=MAX_STEPS.__getitem__,
        get_task=partial(plus_task, source),
        make=make_libero_plus,
        embodiment="libero",
        packages=("mujoco", "robosuite"),
        perturbations=CATEGORIES,
        with_source=libero_plus,
        unavailable_tasks=partial(unavailable_tasks, source),
        kinship=partial(kinship, source),
    )


LIBERO_PLUS = libero_plus(TaskSource())
