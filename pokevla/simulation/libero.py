"""LIBERO as a benchmark: the four suites of ten tasks each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pokevla.simulation.benchmark import Benchmark, Environment, EnvironmentSettings
from pokevla.simulation.suites import MAX_STEPS, SUITES, get_task, scene_of

if TYPE_CHECKING:
    import numpy as np

TASKS_PER_SUITE = 10
"""Of each of the four suites (LIBERO, libero/libero/benchmark/libero_suite_task_map.py)."""


def make_libero(suite: str, task_index: int, settings: EnvironmentSettings) -> Environment:
    """Create the environment of one task. Imports MuJoCo."""
    from pokevla.simulation.compiling.cache import user_model_cache
    from pokevla.simulation.environment import LiberoEnvironment

    return LiberoEnvironment(
        suite,
        task_index,
        image_size=settings.image_size,
        fast_rendering=settings.fast_rendering,
        seed=settings.seed,
        fixtures=settings.fixtures,
        placements=settings.placements,
        model_cache=user_model_cache(),
    )


def make_script(environment: Environment) -> Callable[[], np.ndarray]:
    """The scripted expert's next action (7,). Raises SimulationError for tasks that are not single pick-and-place."""
    from pokevla.simulation.environment import LiberoEnvironment
    from pokevla.simulation.expert.scripted import ScriptedExpert

    if not isinstance(environment, LiberoEnvironment):
        raise TypeError(f"{type(environment).__name__} is no LiberoEnvironment")
    return ScriptedExpert(environment).act


LIBERO = Benchmark(
    suites=SUITES,
    num_tasks=lambda _suite: TASKS_PER_SUITE,
    max_steps=MAX_STEPS.__getitem__,
    get_task=get_task,
    make=make_libero,
    embodiment="libero",
    script=make_script,
    draws_placements=True,
    packages=("mujoco", "robosuite"),
    kinship=lambda suite, index: (scene_of(suite, index),),
)
