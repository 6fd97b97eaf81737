"""OpenVLA-OFT's no-op rule on any sequence of actions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pokevla.embodiment.noops import moving_frames

ARM = st.sampled_from([0.0, 0.0, 0.0, 1e-5, -2e-5, 9e-5, 1.1e-4, 0.3, -1.0])
HAND = st.sampled_from([-1.0, 1.0, 0.0])


@st.composite
def episodes(draw: st.DrawFn) -> np.ndarray:
    """(T, 7) actions, many of them idle or nearly so."""
    length = draw(st.integers(0, 12))
    arm = draw(arrays(np.float64, (length, 6), elements=ARM))
    hand = draw(arrays(np.float64, (length, 1), elements=HAND))
    return np.concatenate([arm, hand], axis=1)


def is_noop(action: np.ndarray, previous: np.ndarray | None) -> bool:
    """Written down again from regenerate_libero_dataset.py."""
    still = bool(np.linalg.norm(action[:-1]) < 1e-4)
    return still if previous is None else still and action[-1] == previous[-1]


@given(episodes())
def test_what_is_kept_is_what_their_loop_keeps(actions: np.ndarray) -> None:
    kept: list[int] = []
    for t, action in enumerate(actions):
        if not is_noop(action, actions[kept[-1]] if kept else None):
            kept.append(t)
    assert np.flatnonzero(moving_frames(actions)).tolist() == kept


@given(episodes())
def test_a_second_pass_drops_nothing(actions: np.ndarray) -> None:
    assert moving_frames(actions[moving_frames(actions)]).all()


@given(episodes(), st.integers(0, 11), st.integers(1, 4))
def test_idle_actions_that_are_put_in_are_dropped_again(actions: np.ndarray, place: int, count: int) -> None:
    kept = actions[moving_frames(actions)]
    if len(kept) == 0:
        return
    at = place % len(kept)
    idle = np.repeat(kept[at : at + 1], count, axis=0)
    idle[:, :6] = 0.0
    padded = np.concatenate([kept[: at + 1], idle, kept[at + 1 :]])
    np.testing.assert_array_equal(padded[moving_frames(padded)], kept)
