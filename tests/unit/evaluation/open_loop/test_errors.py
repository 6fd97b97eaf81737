"""Errors of chunks, and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.embodiment.libero import LIBERO
from pokevla.evaluation.open_loop.errors import (
    Column,
    absolute_errors,
    action_columns,
    episode_interval,
    gripper_agreement,
    paired_difference,
    relative_by_horizon,
    relative_errors,
    summarise_errors,
)


def test_columns_are_in_physical_units() -> None:
    columns = action_columns(LIBERO)
    assert columns[0] == Column("position[0]", "m", 0.05)
    assert columns[5] == Column("rotation[2]", "rad", 0.5)
    assert columns[6] == Column("gripper", "1", 1.0)
    errors = absolute_errors(np.full((1, 1, 7), 2.0), np.zeros((1, 1, 7)), columns)
    assert errors[0, 0] == pytest.approx([0.1, 0.1, 0.1, 1.0, 1.0, 1.0, 2.0])


@given(st.integers(0, 2**32 - 1))
def test_the_constant_action_has_a_relative_error_of_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    constant = rng.uniform(0, 3, (12, 4, 3))
    constant[..., 1] = 0.0  # never wrong in this column: it cannot be compared
    assert relative_errors(constant, constant).mean() == pytest.approx(1.0)
    assert relative_by_horizon(constant, constant).mean() == pytest.approx(1.0)
    assert relative_errors(constant / 2, constant).mean() == pytest.approx(0.5)


def test_errors_are_averaged_over_frames_and_split_by_column_and_horizon() -> None:
    errors = np.array([[[1.0, 0.0], [3.0, 0.0]], [[1.0, 4.0], [3.0, 4.0]]])  # (2 frames, 2 actions, 2 columns)
    constant = np.full((2, 2, 2), 2.0)
    columns = [Column("a", "m", 1.0), Column("b", "1", 1.0)]
    summary = summarise_errors(errors, constant, np.array([0, 1]), columns)
    assert summary["by_column"] == {"a": 2.0, "b": 2.0}
    assert summary["by_horizon"] == [0.75, 1.25]
    assert summary["by_horizon_and_column"] == [[1.0, 2.0], [3.0, 2.0]]
    assert summary["relative_error"] == pytest.approx(1.0)


def test_frames_of_one_episode_do_not_count_as_independent() -> None:
    rng = np.random.default_rng(1)
    means = rng.normal(0.0, 1.0, 20)
    values = np.repeat(means, 50) + rng.normal(0.0, 0.01, 1000)
    _, low, high = episode_interval(values, np.repeat(np.arange(20), 50))
    _, apart_low, apart_high = episode_interval(values, np.arange(1000))
    assert high - low > 4 * (apart_high - apart_low)
    assert low < means.mean() < high


def test_the_interval_covers_the_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(2)
    episodes = np.repeat(np.arange(40), 3)
    covered = 0
    for _ in range(200):
        _, low, high = episode_interval(np.repeat(rng.normal(0.0, 1.0, 40), 3), episodes)
        covered += low <= 0.0 <= high
    assert 178 <= covered <= 198  # 0.95 * 200 = 190, a standard deviation of 3


def test_a_better_policy_gains() -> None:
    rng = np.random.default_rng(3)
    constant = rng.uniform(0.5, 1.5, (60, 4, 2))
    episodes = np.repeat(np.arange(12), 5)
    gain, low, high = paired_difference(0.5 * constant, constant, constant, episodes)
    assert 0.45 < low < gain < high < 0.55
    _, low, high = paired_difference(constant, constant, constant, episodes)
    assert (low, high) == (0.0, 0.0)


def test_grippers_agree_on_one_side_of_the_middle() -> None:
    predicted, true = np.zeros((1, 4, 7)), np.zeros((1, 4, 7))
    predicted[0, :, 6] = [-1.0, -0.1, 0.1, 1.0]
    true[0, :, 6] = [-1.0, 1.0, 1.0, 1.0]
    assert gripper_agreement(predicted, true, LIBERO) == 0.75
