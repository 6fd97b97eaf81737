"""What a command says on its way, where there is no terminal to draw a bar on."""

from __future__ import annotations

import re

import pytest

from pokevla.cli.progress import progress
from pokevla.telemetry.time_left import TimeLeft


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_log_gets_a_line_at_each_tenth_of_the_way_and_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("episodes") as listen:
        for done in range(1, 46):
            listen(done, 45)

    printed = lines(capsys)
    assert printed[0] == "episodes: 1 of 45"
    assert printed[-1] == "episodes: 45 of 45"
    assert len(printed) <= 13


def test_failures_are_told_where_attempts_can_fail(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("episodes") as listen:
        listen(0, 2, 1)
        listen(2, 2, 1)

    assert lines(capsys) == ["episodes: 0 of 2, 1 failed", "episodes: 2 of 2, 1 failed"]


def test_without_a_total_lines_come_more_and_more_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("pictures") as listen:
        for done in range(1, 1001):
            listen(done)

    assert lines(capsys) == [f"pictures: {2**n}" for n in range(10)]


def test_lines_between_the_first_and_the_last_say_when_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("episodes") as listen:
        for done in (1, 20, 40):
            listen(done, 40)

    first, second, last = lines(capsys)
    assert "ETA" not in first + last
    assert second.startswith("episodes: 20 of 40, ETA ")


def test_the_time_left_follows_from_the_recent_speed_and_begins_anew_with_something_new() -> None:
    seconds = iter([0.0, 10.0, 11.0, 500.0, 504.0])
    left = TimeLeft(lambda: next(seconds))
    assert [left.after(done, 100) for done in (0, 10, 11)] == ["", "ETA 1 min 30 s", "ETA 1 min 29 s"]
    assert [left.after(done, 9) for done in (1, 5)] == ["", "ETA 4 s"]
    assert TimeLeft(lambda: 0.0).after(3, None) == ""


def test_with_a_unit_the_recent_speed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("pictures", "samples") as listen:
        for done in (1, 20, 40):
            listen(done, 40)

    first, second, last = lines(capsys)
    assert "/s" not in first
    assert re.fullmatch(r"pictures: 20 of 40, \S+ samples/s, ETA .*", second)
    assert re.fullmatch(r"pictures: 40 of 40, \S+ samples/s", last)


def test_speed_is_that_of_the_latest_updates() -> None:
    seconds = iter([0.0, 10.0, 12.0])
    left = TimeLeft(lambda: next(seconds))
    assert left.per_s is None
    left.after(0, 100)
    assert left.per_s is None
    left.after(20, 100)
    assert left.per_s == 2.0
    left.after(48, 100)
    assert left.per_s == 4.0
