from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pokevla.data.statistics import Statistics, compute_statistics
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DataError
from tests.unit.embodiment.robots import TWO_HANDED

FLOATS = st.floats(-1.0, 1.0, width=32)


def make(seed: int = 0) -> tuple[Statistics, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-0.8, 0.9, (500, 7))
    actions[:, 6] = rng.choice([-1.0, 1.0], 500)
    proprio = rng.normal(size=(500, 8))
    return compute_statistics([actions[:200], actions[200:]], [proprio[:200], proprio[200:]], LIBERO), actions, proprio


def test_normalised_values_lie_in_the_unit_range_and_gripper_is_open_one() -> None:
    statistics, actions, proprio = make()
    normalised = statistics.normalise_actions(actions)
    assert normalised.dtype == np.float32
    assert np.abs(normalised).max() <= 1.0
    assert np.array_equal(normalised[:, 6], (actions[:, 6] < 0).astype(np.float32))
    assert np.abs(statistics.normalise_proprio(proprio)).max() <= 1.0


def test_quantiles_map_to_the_ends() -> None:
    statistics, _, _ = make()
    low = np.concatenate([statistics.action.q01[:6], [1.0]])
    assert statistics.normalise_actions(low) == pytest.approx([-1.0] * 6 + [0.0], abs=1e-6)


@settings(max_examples=50)
@given(arrays(np.float32, (3, 7), elements=FLOATS))
def test_denormalising_inverts_normalising_inside_the_quantiles(raw: np.ndarray) -> None:
    statistics, _, _ = make()
    inside = np.clip(raw, statistics.action.q01, statistics.action.q99)
    inside[:, 6] = np.where(raw[:, 6] > 0, 1.0, -1.0)
    back = statistics.denormalise_actions(statistics.normalise_actions(inside))
    assert back == pytest.approx(inside, abs=1e-5)


def test_a_constant_dimension_becomes_zero_and_comes_back() -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (50, 7))
    actions[:, 3] = 0.25
    statistics = compute_statistics([actions], [np.zeros((50, 8))], LIBERO)
    assert not statistics.normalise_actions(actions)[:, 3].any()
    assert statistics.denormalise_actions(np.zeros(7))[3] == pytest.approx(0.25)
    assert not statistics.normalise_proprio(np.zeros(8)).any()


def test_json_round_trip_is_exact() -> None:
    statistics, actions, _ = make()
    again = Statistics.from_dict(json.loads(json.dumps(statistics.to_dict())), LIBERO)
    assert np.array_equal(again.normalise_actions(actions), statistics.normalise_actions(actions))


def test_missing_fields_and_no_frames_are_named() -> None:
    with pytest.raises(DataError, match="proprio"):
        Statistics.from_dict({"action": make()[0].to_dict()["action"]}, LIBERO)
    with pytest.raises(DataError, match="no frame"):
        compute_statistics([], [], LIBERO)


def test_each_gripper_follows_its_own_commands_and_unscaled_columns_stay() -> None:
    raw = np.zeros((4, 9))
    raw[:, 3], raw[:, 7], raw[:, 8] = (0.0, 0.4, 0.6, 1.0), (-1.0, -0.2, 0.4, 1.0), (0.0, 1.0, 2.0, 3.0)
    raw[:, 0] = np.linspace(-2, 2, 4)
    statistics = compute_statistics([raw], [np.zeros((4, 10))], TWO_HANDED)
    normalised = statistics.normalise_actions(raw)
    assert normalised[:, 3] == pytest.approx([0.0, 0.8, 1.0, 1.0]), "0 closed, open from the middle on"
    assert normalised[:, 7] == pytest.approx([1.0, 1.0, 0.6, 0.0]), "-1 open, 1 closed"
    assert normalised[:, 8].tolist() == raw[:, 8].tolist()
    back = statistics.denormalise_actions(normalised)
    assert back[:, 3].tolist() == [0.0, 1.0, 1.0, 1.0]
    assert back[:, 7].tolist() == [-1.0, -1.0, -1.0, 1.0]
    assert back[:, 8].tolist() == raw[:, 8].tolist()


def test_statistics_of_other_widths_than_the_embodiment_are_refused() -> None:
    with pytest.raises(DataError, match="7 action and 8 proprio numbers; the embodiment two-handed has 9 and 10"):
        Statistics.from_dict(make()[0].to_dict(), TWO_HANDED)


def test_statistics_of_bad_numbers_are_refused_with_episode_and_row() -> None:
    good, bad = np.zeros((5, 7)), np.zeros((5, 7))
    bad[4, 2] = np.nan
    with pytest.raises(DataError, match=r"actions of episode 1 of those .*, row 4: column 2 is nan"):
        compute_statistics([good, bad], [np.zeros((5, 8))] * 2, LIBERO)
    statistics = make()[0].to_dict()
    for value, words in ((float("nan"), "action, mean: column 3 is nan"), (None, "action, mean: column 3 is nan"),
                         ("x", "are damaged")):  # fmt: skip
        statistics["action"]["mean"][3] = value
        with pytest.raises(DataError, match=words):
            Statistics.from_dict(statistics, LIBERO)


@pytest.mark.parametrize("value", [[0.0] * 6, 0.0, [[0.0] * 7], []])
@pytest.mark.parametrize("name", ["mean", "q01", "mask"])
def test_statistics_whose_lists_differ_in_length_are_refused(name: str, value: object) -> None:
    statistics = make()[0].to_dict()
    statistics["action"][name] = value
    with pytest.raises(DataError, match="damaged: the m"):
        Statistics.from_dict(statistics, LIBERO)
