"""Which frames of an episode are explained, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import SimulationError, UsageError
from pokevla.evaluation.explaining.moments import SimulatedTrial, simulated_scene, stored_scene
from pokevla.policy.replay import ReplayPolicy
from tests.toys import LENGTH, write_toy_dataset, write_toy_questions


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy", episodes=3)


def test_every_nth_frame_and_the_last_one(dataset: Path) -> None:
    scene = stored_scene(dataset, 1, 5, LIBERO)
    assert [moment.step for moment in scene.moments] == [0, 5, 10, LENGTH - 1]
    assert scene.instruction == "Follow the square"
    first = scene.moments[1]
    assert first.images.shape == (2, 32, 32, 3)
    assert first.proprio.shape == (8,)
    assert first.masks is not None
    inside, outside = first.images[first.masks], first.images[~first.masks]
    if first.masks.any():
        assert inside[:, 0].mean() > outside[:, 0].mean() + 50, "the mask is on the red square"


def test_another_episode_has_other_frames(dataset: Path) -> None:
    one, two = (stored_scene(dataset, number, 16, LIBERO).moments[0] for number in (0, 1))
    assert not np.array_equal(one.images, two.images)


def test_an_episode_that_does_not_exist_is_refused_with_the_nearest(dataset: Path) -> None:
    with pytest.raises(UsageError, match=r"no episode 7; it has 3, numbered 0 to 2.*nearest is 2"):
        stored_scene(dataset, 7, 4, LIBERO)


def test_questions_and_other_robots_are_refused(dataset: Path, tmp_path: Path) -> None:
    questions = write_toy_questions(tmp_path / "questions", count=16)
    with pytest.raises(UsageError, match="dataset of questions"):
        stored_scene(questions, 0, 4, LIBERO)
    other = dataclasses.replace(LIBERO, name="arm", views=("front",))
    with pytest.raises(UsageError, match=r"embodiment arm, .*toy has libero: views front against base, wrist"):
        stored_scene(dataset, 0, 4, other)


def test_trials_that_cannot_be_are_refused_before_a_simulator_starts() -> None:
    policy = ReplayPolicy(np.zeros((2, 7)), LIBERO, 8)
    with pytest.raises(UsageError, match="libero_objects"):
        simulated_scene(SimulatedTrial("libero_objects", 0), policy)
    with pytest.raises(SimulationError, match=r"no initial state 99.*0 to 49"):
        simulated_scene(SimulatedTrial("libero_object", 3, init_state_index=99), policy)
