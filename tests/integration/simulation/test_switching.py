"""An environment that became another task is what a new environment of that task is: states, poses and pixels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pokevla.simulation.compiling.cache import ModelCache
from pokevla.simulation.compiling.snapshot import _arrays, _fields
from pokevla.simulation.environment import LiberoEnvironment
from pokevla.simulation.suites import scene_of

pytestmark = pytest.mark.simulator
SIZE = 64
ACTIONS = np.random.default_rng(0).uniform(-0.6, 0.6, (6, 7))


def episode(env: LiberoEnvironment, init_state: int) -> list[np.ndarray]:
    """States, poses of all bodies, and pictures of a few steps."""
    env.reset(init_state, settle_steps=2)
    seen = [env.stored_images()]
    for action in ACTIONS:
        env.step(action)
        seen += [env.state(), env.sim_data.xpos.copy(), env.proprio()]
    return [*seen, env.stored_images(), env.target_masks(), env.sim_model.body_pos.copy()]


def assert_same(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def goal() -> Iterator[LiberoEnvironment]:
    env = LiberoEnvironment("libero_goal", 5, image_size=SIZE, fixtures="per_trial")
    yield env
    env.close()


def test_a_switched_environment_equals_a_new_one_and_compiles_nothing(goal: LiberoEnvironment) -> None:
    expected = episode(goal, 1)
    instruction, targets = goal.task.instruction, goal.target_instances
    model, renderer = goal.sim_model, goal._compiler.renderer
    other = LiberoEnvironment("libero_goal", 8, image_size=SIZE, fixtures="per_trial")
    episode(other, 0)

    other.switch(5)
    assert_same(episode(other, 1), expected)
    assert (other.task.instruction, other.target_instances) == (instruction, targets)
    goal.switch(8)
    assert_same(
        episode(goal, 3), episode(LiberoEnvironment("libero_goal", 8, image_size=SIZE, fixtures="per_trial"), 3)
    )
    assert goal.sim_model is model
    assert goal._compiler.renderer is renderer
    other.close()


def test_a_model_that_is_put_back_equals_a_compiled_one(goal: LiberoEnvironment) -> None:
    goal.switch(2)  # everything was changed by the episodes before
    xml = goal._compiler._xml
    assert xml is not None
    restored = goal._compiler.compile(xml)
    compiled = goal._mujoco.MjModel.from_xml_string(xml)
    ours, theirs = dict(_arrays(restored)), dict(_arrays(compiled))
    assert ours.keys() == theirs.keys()
    assert len(ours) > 200
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    for struct in ("opt", "vis", "stat"):
        numbers = [[value for _, _, value in _fields(getattr(model, struct))] for model in (restored, compiled)]
        assert len(numbers[0]) >= 4
        for one, other in zip(*numbers, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_model_whose_meshes_were_changed_is_compiled_anew(goal: LiberoEnvironment) -> None:
    model = goal.sim_model
    before = float(model.mesh_vert[0, 0])
    model.mesh_vert[0, 0] = before + 1
    goal.switch(5)
    assert goal.sim_model is not model
    assert goal.sim_model.mesh_vert[0, 0] == before


def test_an_environment_whose_model_comes_from_the_cache_equals_one_that_compiled_it(
    goal: LiberoEnvironment, tmp_path: Path
) -> None:
    goal.switch(5)
    expected = episode(goal, 2)
    for _ in range(2):  # stores the model, then loads it
        cached = LiberoEnvironment(
            "libero_goal", 5, image_size=SIZE, fixtures="per_trial", model_cache=ModelCache(tmp_path)
        )
        assert_same(episode(cached, 2), expected)
        cached.close()
        (stored,) = tmp_path.glob("*.mjb")
        used = stored.stat().st_mtime_ns
        os.utime(stored, (1, 1))
    assert used > 10**9 * 2  # the second took it from there


@pytest.mark.parametrize(("suite", "first", "second"), [("libero_spatial", 0, 7), ("libero_10", 0, 1)])
def test_tasks_of_one_scene_have_one_model(suite: str, first: int, second: int) -> None:
    assert scene_of(suite, first) == scene_of(suite, second)
    env = LiberoEnvironment(suite, first, image_size=SIZE)
    model = env.sim_model
    env.switch(second)
    assert env.sim_model is model
    env.close()
