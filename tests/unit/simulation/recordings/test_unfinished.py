"""A recording that is killed goes on after its last attempt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pokevla.simulation.recordings.episodes import DemoSettings, Episode
from pokevla.simulation.recordings.unfinished import forget, resumed, unfinished_folder

Started = list[int]


def attempt(number: int) -> Episode:
    """Attempt 1 fails."""
    rng = np.random.default_rng(number)
    success = number != 1
    images = rng.integers(0, 255, (3, 4, 4, 3), np.uint8)
    arrays = {"actions": rng.uniform(size=(5, 7)), "obs/agentview_rgb": images, "obs/rendered": images[:, 0, 0, 0] > 99}
    return Episode(
        success=success,
        init_state_index=number,
        target_shift=(0.25, -0.1),
        seed=7 + number,
        init_state=rng.uniform(size=9),
        arrays=arrays if success else {},
        instances=["milk", "basket"],
        target_instances=["milk"],
        model_xml="<mujoco/>",
        cpu_s={"physics": 0.5},
    )


@pytest.fixture
def settings(tmp_path: Path) -> DemoSettings:
    return DemoSettings(suite="libero_object", task_index=3, episodes=4, out=tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "libero_object" / "milk_demo.hdf5"


def record(path: Path, settings: DemoSettings, count: int) -> tuple[list[Episode], Started]:
    """The first `count` episodes, and the numbers of the attempts that were run for them."""
    started: Started = []

    def run(first: int) -> Iterator[Episode]:
        for number in range(first, 10):
            started.append(number)
            yield attempt(number)

    episodes = resumed(path, settings, run)
    return [next(episodes) for _ in range(count)], started


def test_repeated_recording_does_not_repeat_an_attempt(path: Path, settings: DemoSettings) -> None:
    assert record(path, settings, 3)[1] == [0, 1, 2]
    episodes, started = record(path, replace(settings, episodes=9, workers=1), 5)
    assert started == [3, 4]
    for number, episode in enumerate(episodes):
        expected = attempt(number)
        assert {**vars(episode), "arrays": 0, "init_state": 0} == {**vars(expected), "arrays": 0, "init_state": 0}
        np.testing.assert_array_equal(episode.init_state, expected.init_state)
        assert list(episode.arrays) == list(expected.arrays)
        for name, values in expected.arrays.items():
            np.testing.assert_array_equal(episode.arrays[name], values)
            assert episode.arrays[name].dtype == values.dtype


@pytest.mark.parametrize("change", [{"seed": 1}, {"image_size": 64}, {"dart_sigma": 0.1}])
def test_attempts_of_other_settings_are_not_used(path: Path, settings: DemoSettings, change: dict) -> None:
    record(path, settings, 3)
    assert record(path, replace(settings, **change), 2)[1] == [0, 1]


@pytest.mark.parametrize("damage", [b"", b"PK", b"not a file of ours"])
def test_damaged_attempt_is_made_again_with_those_behind_it(path: Path, settings: DemoSettings, damage: bytes) -> None:
    record(path, settings, 3)
    (unfinished_folder(path) / "00001.npz").write_bytes(damage)
    assert record(path, settings, 3)[1] == [1, 2]


def test_flipped_byte_is_noticed(path: Path, settings: DemoSettings) -> None:
    record(path, settings, 1)
    stored = unfinished_folder(path) / "00000.npz"
    content = bytearray(stored.read_bytes())
    content[len(content) // 3] ^= 1
    stored.write_bytes(content)
    assert record(path, settings, 1)[1] == [0]


def test_nothing_is_left_of_a_recording_that_has_ended(path: Path, settings: DemoSettings) -> None:
    record(path, settings, 2)
    forget(path)
    assert list(path.parent.iterdir()) == []
