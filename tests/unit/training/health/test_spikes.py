"""Whether a loss is a spike is a pure function of the preceding losses."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.recipe.running import GuardsConfig
from pokevla.training.health.spikes import SpikeWatch

LOSSES = st.lists(st.floats(0.01, 100.0), min_size=1, max_size=40)


def watch(**settings: object) -> SpikeWatch:
    return SpikeWatch(GuardsConfig.model_validate({"spike_window": 16, **settings}))


def after(losses: list[float], **settings: object) -> SpikeWatch:
    spikes = watch(**settings)
    for loss in losses:
        spikes.note(loss, applied=True)
    return spikes


def test_a_loss_far_above_the_last_ones_is_a_spike() -> None:
    spikes = after([2.0, 2.1, 1.9, 2.05, 1.95, 2.0, 2.1, 1.9])
    assert not spikes.note(2.3, applied=True)
    assert spikes.note(20.0, applied=True)


def test_nothing_is_a_spike_before_half_the_window_is_there() -> None:
    assert after([2.0] * 7).limit == math.inf
    assert after([2.0] * 8).limit < math.inf


def test_a_loss_that_stands_still_leaves_room_for_rounding() -> None:
    assert after([2.0] * 16).limit == pytest.approx(2.0 + 10 * 0.01 * 2.0)


def test_one_spike_does_not_hide_the_next() -> None:
    spikes = after([2.0, 2.1, 1.9, 2.05, 1.95, 2.0, 2.1, 1.9])
    before = spikes.limit
    spikes.note(1e6, applied=True)
    assert spikes.limit < before + 1.0


def test_a_level_that_has_changed_for_good_is_not_reported_for_ever() -> None:
    spikes = after([2.0] * 16)
    assert [spikes.note(5.0, applied=True) for _ in range(12)][-1] is False


def test_a_step_left_out_is_no_history() -> None:
    spikes = after([2.0] * 16, spike="skip")
    state, limit = spikes.state(), spikes.limit
    assert spikes.note(9.0, applied=False)
    assert (spikes.state(), spikes.limit, spikes.skip_limit) == (state, limit, limit)


@pytest.mark.parametrize("action", ["off", "record", "stop"])
def test_only_skip_limits_the_step_itself(action: str) -> None:
    assert after([2.0] * 16, spike=action).skip_limit == math.inf


def test_off_means_off() -> None:
    assert not after([2.0] * 16, spike="off").note(1e9, applied=True)


def test_a_loss_that_is_not_finite_is_no_history() -> None:
    spikes = after([2.0] * 16)
    state = spikes.state()
    spikes.note(-math.inf, applied=True)  # no loss of the step was finite
    assert spikes.state() == state


@given(before=LOSSES, later=LOSSES)
def test_a_restored_watch_judges_like_the_one_that_was_saved(before: list[float], later: list[float]) -> None:
    whole = after(before)
    resumed = watch()
    resumed.restore(list(whole.state()))  # JSON gives lists
    for loss in later:
        assert resumed.limit == whole.limit
        assert resumed.note(loss, applied=True) == whole.note(loss, applied=True)
