"""The speed that the time left is computed from."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pokevla.telemetry.pace import RECENT_LINES, RECENT_S, seconds_of, seconds_per_step


def line(step: int, seconds: float, step_s: float | None = None) -> dict:
    return {"step": step, "time": datetime.fromtimestamp(1_790_000_000 + seconds, UTC).isoformat(), "step_s": step_s}


def test_the_speed_is_that_of_the_recent_window_not_of_the_whole_run() -> None:
    slow = [line(step, 60 * step) for step in range(1, 101)]  # a minute a step
    fast = [line(100 + step, 6000 + step) for step in range(1, 601)]  # then a second a step
    assert seconds_per_step([*slow, *fast]) == pytest.approx(1.0)
    assert seconds_per_step(slow) == pytest.approx(60.0)


def test_slow_steps_are_measured_over_several_lines() -> None:
    rows = [line(step, 2 * RECENT_S * step) for step in range(1, 2 * RECENT_LINES)]
    rows[-1]["time"] = line(0, 2 * RECENT_S * (2 * RECENT_LINES + 9))["time"]  # one step took ten times as long
    assert seconds_per_step(rows) == pytest.approx(2 * RECENT_S * 2)


def test_the_time_between_two_jobs_does_not_count() -> None:
    rows = [line(10, 0), line(20, 20), line(30, 5000), line(40, 5050)]
    begun_s = seconds_of(rows[2])
    assert begun_s is not None
    assert seconds_per_step(rows, begun_s) == pytest.approx(5.0)


def test_lines_too_close_in_time_fall_back_on_their_own_measurement() -> None:
    assert seconds_per_step([line(1, 0, 3.0), line(2, 1, 0.25)]) == 0.25
    assert seconds_per_step([line(1, 0)]) is None
    assert seconds_per_step([]) is None


def test_a_row_without_a_usable_time_has_none() -> None:
    assert [seconds_of(row) for row in (None, {}, {"time": 3}, {"time": "noon"})] == [None] * 4


def test_a_time_per_step_that_is_no_number_is_left_out() -> None:
    assert seconds_per_step([{"step": 1, "step_s": [1.0]}]) is None
    assert seconds_per_step([{"step": 1, "step_s": 0.5}]) == 0.5
    assert seconds_of({"time": "0001-01-01T00:00:00"}) is None
