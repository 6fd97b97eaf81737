"""The constant action and the nearest neighbour."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pokevla.data.dataset import open_dataset
from pokevla.data.reader import ShardReader
from pokevla.errors import DataError
from pokevla.evaluation.open_loop.baselines import NearestNeighbour, constant_actions
from pokevla.evaluation.open_loop.frames import Frames, select_frames
from tests.toys import write_toy_dataset, write_toy_questions


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    root = write_toy_dataset(tmp_path_factory.mktemp("open_loop") / "toy")
    return select_frames(open_dataset(root), "train", horizon=4, most=1000)


def test_frames_have_the_actions_that_were_recorded_after_them(known: Frames) -> None:
    assert known.dataset.episodes is not None
    episodes = {row["episode"]: row for row in known.dataset.episodes.to_pylist()}
    for index in (0, 7, len(known) - 1):
        episode = episodes[int(known.episodes[index])]
        frame = int(known.numbers[index])
        np.testing.assert_array_equal(known.actions[index], episode["actions"][frame : frame + 4])
        np.testing.assert_array_equal(known.proprio[index], episode["proprio"][frame])
        assert known.key(index) == f"toy-t00-e{int(known.episodes[index]):04d}-f{frame:04d}"
    assert {int(number) for number in known.episodes} == {0, 1, 2, 3}, "the split `val` is not among them"


def test_frames_are_spread_over_the_split(known: Frames) -> None:
    some = select_frames(known.dataset, "train", horizon=4, most=5)
    assert len(some) == 5
    assert (some.rows[0], some.rows[-1]) == (known.rows[0], known.rows[-1])


def test_the_constant_action_is_the_median(known: Frames) -> None:
    constant = constant_actions(known)
    flat = known.actions.reshape(-1, 7)
    errors = np.abs(flat - constant).sum()
    rng = np.random.default_rng(0)
    assert all(errors <= np.abs(flat - constant - rng.normal(0, 0.1, 7)).sum() for _ in range(20))


def test_the_nearest_neighbour_of_a_known_frame_is_itself(known: Frames) -> None:
    counts: list[int] = []
    nearest = NearestNeighbour(known, counts.append)
    assert counts == list(range(1, len(known) + 1))
    reader = ShardReader(known.dataset)
    for index in (0, 5, len(known) - 1):
        np.testing.assert_array_equal(nearest.chunk(known, reader, index), known.actions[index])


def test_the_nearest_neighbour_has_the_same_instruction_if_any_has(known: Frames) -> None:
    words = ["other"] * len(known)
    words[3] = "Follow the square"
    nearest = NearestNeighbour(dataclasses.replace(known, instructions=words), lambda done: None)
    reader = ShardReader(known.dataset)
    np.testing.assert_array_equal(nearest.chunk(known, reader, 9), known.actions[3])
    unknown = dataclasses.replace(known, instructions=["unheard of"] * len(known))
    np.testing.assert_array_equal(nearest.chunk(unknown, reader, 9), known.actions[9])


def test_a_dataset_of_questions_has_no_frames(tmp_path: Path) -> None:
    dataset = open_dataset(write_toy_questions(tmp_path / "questions", 20))
    with pytest.raises(DataError, match="has no actions"):
        select_frames(dataset, "train", horizon=4, most=10)
