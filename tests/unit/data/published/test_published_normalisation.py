"""Statistics of published checkpoints: reading, scaling, choosing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokevla.data.published.normalisation import choose_statistics, read_published_statistics
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DataError, UsageError
from tests.published_checkpoints import STATISTICS

NAME = "libero_spatial_no_noops"


def write(folder: Path, content: Any) -> Path:
    path = folder / "dataset_statistics.json"
    path.write_text(json.dumps(content))
    return path


def test_actions_are_scaled_in_float64_and_the_gripper_becomes_a_command(tmp_path: Path) -> None:
    statistics = read_published_statistics(write(tmp_path, STATISTICS), LIBERO)[NAME]
    bounds = STATISTICS[NAME]["action"]
    normalised = np.random.default_rng(0).uniform(-1.2, 1.2, (3, 8, 7)).astype(np.float32)
    normalised[0, 0, 6] = 0.5
    raw = statistics.denormalise_actions(normalised)
    assert raw.dtype == np.float64
    for row, expected in zip(raw.reshape(-1, 7), normalised.reshape(-1, 7), strict=True):
        for column in range(6):
            low, high = bounds["q01"][column], bounds["q99"][column]
            value = float(np.float32(0.5) * (expected[column] + np.float32(1))) * (high - low + 1e-8) + low
            assert row[column] == value
        assert row[6] == (0 if expected[6] == 0.5 else -1 if expected[6] > 0.5 else 1)


def test_without_a_mask_every_column_is_scaled(tmp_path: Path) -> None:
    content = json.loads(json.dumps(STATISTICS))
    del content[NAME]["action"]["mask"]
    content[NAME]["action"]["q99"][6] = 0.5
    statistics = read_published_statistics(write(tmp_path, content), LIBERO)[NAME]
    raw = statistics.denormalise_actions(np.full((1, 7), 0.9, np.float32))
    assert raw[0, 6] == 1  # 0.475 of 0.5: below the middle of 0 and 1


@given(st.lists(st.floats(-10, 10), min_size=8, max_size=8))
def test_proprio_is_clipped_to_one(values: list[float]) -> None:
    statistics = read_published_statistics(Path(__file__).with_name("statistics.json"), LIBERO)[NAME]
    scaled = statistics.normalise_proprio(np.array([values]))
    assert scaled.dtype == np.float32
    assert np.abs(scaled).max() <= 1
    inside = (values > statistics.proprio.low) & (values < statistics.proprio.high)
    back = (scaled[0].astype(float) + 1) / 2 * (statistics.proprio.high - statistics.proprio.low)
    np.testing.assert_allclose((back + statistics.proprio.low)[inside], np.array(values)[inside], atol=1e-5)


@pytest.mark.parametrize("name", ["libero_spatial", NAME])
def test_statistics_are_found_by_suite_or_by_their_own_name(tmp_path: Path, name: str) -> None:
    statistics = read_published_statistics(write(tmp_path, STATISTICS), LIBERO)
    assert choose_statistics(statistics, name).name == NAME


def test_another_suite_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    statistics = read_published_statistics(write(tmp_path, STATISTICS), LIBERO)
    with pytest.raises(UsageError, match=r"no statistics of libero_goal or libero_goal_no_noops; it has .*spatial"):
        choose_statistics(statistics, "libero_goal")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one.pop("proprio"), "lacks 'proprio'"),
        (lambda one: one["action"].pop("q01"), "lacks 'q01'"),
        (lambda one: one["action"].update(q01=["a"] * 7), "could not convert"),
        (lambda one: one["action"].update(q01=[0.0] * 6), r"have the shapes \(6,\), \(7,\)"),
        (lambda one: one["action"].update(q99=[float("inf")] * 7), "Infinity is not a number of JSON"),
        (lambda one: one["proprio"].update(q01=[1e30] * 8), "q01: column 0 is 1e.30"),
    ],
)
def test_damaged_statistics_are_refused_by_name(tmp_path: Path, change: Any, message: str) -> None:
    content = json.loads(json.dumps(STATISTICS))
    change(content[NAME])
    with pytest.raises(DataError, match=message):
        read_published_statistics(write(tmp_path, content), LIBERO)


@settings(max_examples=40)
@given(
    st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_anything_else_is_a_named_error(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = write(tmp_path_factory.mktemp("statistics"), content)
    with pytest.raises(DataError):
        read_published_statistics(path, LIBERO)
