"""Suites and tasks are found by name, and mistakes are answered with the nearest right one."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from pokevla.data.sources.tasks import task_instruction
from pokevla.errors import UsageError
from pokevla.simulation.libero import LIBERO, TASKS_PER_SUITE
from pokevla.simulation.suites import MAX_STEPS, SUITES, get_task, list_tasks, load_init_states, scene_of


def test_every_suite_has_ten_tasks_with_fifty_initial_states() -> None:
    for suite in SUITES:
        tasks = list_tasks(suite)
        assert [task.index for task in tasks] == list(range(TASKS_PER_SUITE))
        assert all(task.num_init_states == 50 and task.bddl_file.is_file() for task in tasks)
        assert suite in MAX_STEPS


def test_a_task_says_its_instruction_and_objects() -> None:
    task = get_task("libero_object", 3)
    assert task.instruction == "pick up the bbq sauce and place it in the basket"
    assert task.objects_of_interest == ("bbq_sauce_1", "basket_1")
    assert load_init_states(task).shape[0] == 50


def test_datasets_word_instructions_as_evaluations_do() -> None:
    """Both follow the names of the tasks; the BDDL files word 25 of the 40 tasks otherwise."""
    tasks = [task for suite in SUITES for task in list_tasks(suite)]
    assert [task_instruction(task.suite, task.name) for task in tasks] == [task.instruction for task in tasks]
    languages = [re.search(r"\(:language\s+([^)]*)\)", task.bddl_file.read_text()) for task in tasks]
    same = [
        found and found[1].strip().lower() == task.instruction for found, task in zip(languages, tasks, strict=True)
    ]
    assert same.count(False) == 25
    assert task_instruction("libero_spatial", "open_my_door") is None


def test_an_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Did you mean libero_object\?"):
        get_task("libero_objects", 0)


@pytest.mark.parametrize("index", [-1, 10])
def test_an_unknown_task_names_the_valid_range(index: int) -> None:
    with pytest.raises(UsageError, match="0 to 9"):
        get_task("libero_goal", index)


def test_tasks_of_a_scene_are_kin() -> None:
    kin = {suite: [LIBERO.kinship(suite, index) for index in range(TASKS_PER_SUITE)] for suite in SUITES}
    counts = {suite: len(set(scenes)) for suite, scenes in kin.items()}
    assert counts == {"libero_spatial": 1, "libero_goal": 1, "libero_object": 10, "libero_10": 9}
    assert kin["libero_10"][0] == kin["libero_10"][1] == (scene_of("libero_10", 0),)


def test_asking_for_suites_starts_no_simulator(tiny_run_env: dict[str, str]) -> None:
    code = "import sys; from pokevla.simulation.suites import scene_of; scene_of('libero_10', 3); "
    done = subprocess.run(
        [sys.executable, "-c", code + "print([m for m in ('mujoco', 'robosuite', 'torch') if m in sys.modules])"],
        env=tiny_run_env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
