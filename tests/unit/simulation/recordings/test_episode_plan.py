"""What an attempt gets depends on (seed, number) only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pokevla.errors import UsageError
from pokevla.simulation.recordings.demonstrations import collect_demonstrations
from pokevla.simulation.recordings.episodes import DemoSettings, episode_seed, init_state_of
from pokevla.simulation.recordings.scenes import SceneSettings

SETTINGS = DemoSettings("libero_object", 3, 4, Path("unused"), init_states=(10, 20))


def test_all_initial_states_come_before_any_comes_again() -> None:
    drawn = [init_state_of(SETTINGS, number) for number in range(20)]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10, 20))
    assert drawn[:10] != drawn[10:]


def test_seeds_of_attempts_differ_and_repeat() -> None:
    seeds = [episode_seed(1, number) for number in range(100)]
    assert len(set(seeds)) == 100
    assert seeds == [episode_seed(1, number) for number in range(100)]
    assert seeds[0] != episode_seed(2, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init_states": (40, 60)}, "within 0:50"),
        ({"episodes": 0}, "at least 1"),
        ({"val_fraction": 1.0}, "below 1"),
        ({"dart_sigma": -0.1}, "negative"),
        ({"suite": "libero"}, "Did you mean"),
        ({"task_index": 10}, "0 to 9"),
        ({"target_shift_m": (0.06, 0.02)}, "is empty"),
    ],
)
def test_senseless_settings_are_refused_before_anything_starts(change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        collect_demonstrations(replace(SETTINGS, **change))


def test_scene_jobs_share_the_count_among_tasks() -> None:
    jobs = SceneSettings("libero_object", (1, 2, 3), 50, 0, 64, True, (0, 50)).jobs()
    assert [number for _, numbers in jobs for number in numbers] == list(range(50))
    assert {task: sum(len(n) for t, n in jobs if t == task) for task in (1, 2, 3)} == {1: 17, 2: 17, 3: 16}
